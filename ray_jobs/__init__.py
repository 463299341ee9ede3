"""What ``ray job submit`` runs, and a launcher that submits to a private Ray of this machine."""
