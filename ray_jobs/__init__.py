"""Entry points for ``ray job submit``, and a launcher that uses a private Ray on this machine."""
