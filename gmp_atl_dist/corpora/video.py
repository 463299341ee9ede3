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


def is_video(path: str) -> bool:
    """Whether the suffix is of a container that needs FFmpeg."""
    return path.lower().endswith(VIDEO_SUFFIXES)


def sound_of(data: bytes) -> bytes:
    """The first audio track as a WAV file, at its own rate and with its own channels.

    Raises:
        ConfigError: FFmpeg is not installed.
        CorpusError: it cannot decode these bytes, or there is no sound.
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
        command += ["-i", f"file:{clip}", "-map", "0:a:0", "-c:a", "pcm_s16le", f"file:{sound}"]
        try:
            done = subprocess.run(command, capture_output=True, timeout=_LIMIT_S, check=False)
        except subprocess.TimeoutExpired as e:
            raise CorpusError(f"FFmpeg did not decode it within {_LIMIT_S} s; convert it") from e
        if done.returncode or not sound.is_file():
            lines = done.stderr.decode("utf-8", "replace").replace(folder, "").strip().splitlines()
            raise CorpusError(
                f"FFmpeg cannot decode it ({lines[-1] if lines else done.returncode}); copy it again"
            )
        return sound.read_bytes()
