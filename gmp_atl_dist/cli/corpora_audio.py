"""What ``gmp-atl corpora check --audio`` prints: the audio audit, and every recording that cannot be used."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from gmp_atl_dist.cli.tables import print_table
from gmp_atl_dist.console import Reporter
from gmp_atl_dist.errors import CorpusError, GmpAtlError
from gmp_atl_dist.tags import Tags

if TYPE_CHECKING:
    from gmp_atl_dist.config import RunConfig
    from gmp_atl_dist.corpora.reading import CorpusListing
    from gmp_atl_dist.report.audio_content import AudioContent
    from gmp_atl_dist.store.filesystem import Store

_SHOWN = 5


def check_and_print(
    experiment: RunConfig, listing: CorpusListing, source: Store
) -> tuple[dict[str, float], GmpAtlError | None]:
    """Decode the whole corpus, and print its audit.

    Returns:
        seconds by utterance id; and an error that names the recordings that cannot be used or contradict
        each other, or None.
    """
    from gmp_atl_dist.corpora.audio_check import check_audio
    from gmp_atl_dist.report.audio_content import audit_of

    terminal = sys.stdout.isatty()
    reporter = Reporter() if terminal else Reporter(out=sys.stderr)
    with reporter.bar(Tags(stage="audio")) as bar:
        found = check_audio(
            listing,
            source,
            experiment.corpus,
            progress=lambda done, total: bar.update(done, total, "recordings"),
        )
    if found.table.ids:
        emotions = {u.utterance_id: u.emotion for u in found.used}
        _print_audit(audit_of(found.table, emotions, experiment.audit, found.same.copies))
    if copies := found.same.copies_line():
        print(f"warning: {copies}")
    durations = dict(zip(found.table.ids, found.table.columns["seconds"].tolist(), strict=True))
    if not found.problems:
        return durations, None
    return durations, CorpusError.of_all(
        f"{source.uri}: {len(found.problems)} of {len(listing.utterances)} utterances are bad; repair "
        f"them, or leave them out (a run leaves out up to the share corpus.max_bad_fraction):",
        [str(problem) for problem in found.problems],
    )


def _print_audit(audit: AudioContent) -> None:
    heading = ("measure", "lowest", "5 %", "median", "95 %", "highest", "lowest at", "highest at")
    print_table(
        heading,
        [
            (
                f"{m.title} ({m.unit})",
                *(f"{value:.5g}" for value in m.quantiles),
                m.lowest_id,
                m.highest_id,
            )
            for m in audit.measures
        ],
    )
    print_table(
        ("emotion", "utterances", "s", "dBFS", "bandwidth (Hz)", "beyond a limit"),
        [
            (
                g.name,
                str(g.count),
                *(f"{value:.5g}" for value in (g.seconds, g.level_dbfs, g.bandwidth_hz)),
                f"{g.share_with_findings:.1%}",
            )
            for g in audit.emotions
        ],
    )
    rates = ", ".join(f"{rate} Hz: {number}" for rate, number in audit.rates_hz.items())
    channels = ", ".join(f"{count}: {number}" for count, number in audit.channels.items())
    print(f"sampling rates of the files: {rates}; channels: {channels}")
    if len(audit.rates_hz) > 1:
        print(
            "warning: the files have several sampling rates; compare the bandwidth of the emotions"
        )
    for finding in audit.findings:
        shown = ", ".join(
            f"{name} ({value:.5g} {finding.unit})" for name, value in finding.shown[:_SHOWN]
        )
        more = ", ..." if finding.count > min(_SHOWN, len(finding.shown)) else ""
        utterances = "1 utterance" if finding.count == 1 else f"{finding.count} utterances"
        print(f"warning: {finding.code}: {utterances}: {finding.meaning}: {shown}{more}")
