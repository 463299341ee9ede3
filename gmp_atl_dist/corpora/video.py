"""The sound of video containers, decoded by FFmpeg where it is installed."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from gmp_atl_dist.errors import ConfigError, CorpusError

VIDEO_SUFFIXES = (".mp4", ".m4a", ".mkv", ".mov", ".avi", ".flv", ".webm")
"""What libsndfile cannot open."""
_PROGRAM = "ffmpeg"
_LIMIT_S = 300
_MOST_BYTES = 2 << 30
"""Of the WAV that FFmpeg writes: 3 hours of stereo at 48 kHz. It is on the disk, and then in memory."""
_PACKET_BYTES = 16 << 20
"""More than FFmpeg writes at once."""


def is_video(path: str) -> bool:
    """Whether the suffix is of a container that needs FFmpeg."""
    return path.lower().endswith(VIDEO_SUFFIXES)


def sound_of(data: bytes) -> bytes:
    """The first audio track as a WAV file, at its own rate and with its own channels.

    Raises:
        ConfigError: FFmpeg is not installed.
        CorpusError: it cannot decode these bytes, there is no sound, or too much of it.
    """
    program = shutil.which(_PROGRAM)
    if program is None:
        raise ConfigError(
            "the corpus has video containers, and FFmpeg is not installed here; install ffmpeg on "
            "every worker, or convert the clips to WAV under the same names"
        )
    # In files, because FFmpeg must seek in an MP4 whose index is at its end, and in the WAV that it writes.
    with tempfile.TemporaryDirectory(prefix="gmp-atl-") as folder:
        clip, sound = Path(folder) / "clip", Path(folder) / "sound.wav"
        clip.write_bytes(data)
        # Of a container from data, nothing else may be opened: no playlist, no address.
        command = [program, "-nostdin", "-v", "error", "-protocol_whitelist", "file"]
        command += ["-i", f"file:{clip}", "-map", "0:a:0", "-c:a", "pcm_s16le"]
        # FFmpeg stops with success when the file is so large, or a packet before that.
        command += ["-fs", str(_MOST_BYTES + _PACKET_BYTES), f"file:{sound}"]
        try:
            done = subprocess.run(command, capture_output=True, timeout=_LIMIT_S, check=False)
        except subprocess.TimeoutExpired as e:
            raise CorpusError(f"FFmpeg did not decode it within {_LIMIT_S} s; convert it") from e
        if done.returncode or not sound.is_file():
            lines = done.stderr.decode("utf-8", "replace").replace(folder, "").strip().splitlines()
            raise CorpusError(
                f"FFmpeg cannot decode it ({lines[-1] if lines else done.returncode}); copy it again"
            )
        if sound.stat().st_size > _MOST_BYTES:
            raise CorpusError(
                f"its sound takes more than {_MOST_BYTES} bytes as 16-bit WAV, which is the most that is "
                f"read from a video; cut it, or convert it to 16 kHz mono WAV"
            )
        return sound.read_bytes()
