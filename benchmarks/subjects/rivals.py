"""Other loops that train on the same recordings: a bare DDP loop, and the Trainer of ``transformers``."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from benchmarks.subjects.training_inputs import CLIP_NORM, RANKS, K
from benchmarks.subjects.updates import NotedRetrain, write_note
from gmp_atl_dist.audio import pcm16_to_float
from gmp_atl_dist.models.backbone import SpeechBackbone
from gmp_atl_dist.store.readers import AudioReader
from gmp_atl_dist.training.batch_plan import BatchPlan
from gmp_atl_dist.training.batches import BatchLoader, max_crop_samples

if TYPE_CHECKING:
    from torch import Tensor


def train_by_ddp(recipe: NotedRetrain, rank: int) -> None:
    """Our batches, losses and optimiser in the shortest loop that PyTorch allows.

    The backbone computes padded batches, as ``transformers`` does.
    """
    config, utterances = recipe.optim, recipe.utterances
    max_samples = max_crop_samples(config.max_utterance_s)
    plan = BatchPlan(
        utterances.num_samples,
        utterances.part_numbers,
        batch_s=config.batch_s,
        max_samples=max_samples,
        seed=config.seed,
    )
    loader = BatchLoader(
        plan,
        utterances.rows,
        AudioReader(recipe.corpus),
        rank=rank,
        world_size=RANKS,
        micro_batches=config.micro_batches,
        max_samples=max_samples,
        seed=config.seed,
    )
    built = recipe.build()
    backbone = recipe.backbone(built)
    backbone.packed_frames = partial(SpeechBackbone.packed_frames, backbone)
    model = nn.parallel.DistributedDataParallel(built)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, betas=config.betas)
    for _, batches in loader.updates(0, config.steps or 0):
        counts = torch.tensor([recipe.counts(b) for b in batches], dtype=torch.float64).sum(dim=0)
        dist.all_reduce(counts)
        for batch in batches:
            losses = recipe.losses(model, batch)
            terms = zip(recipe.factors, losses.sums, counts.tolist(), strict=True)
            loss = sum((total * (f * RANKS / n) for f, total, n in terms), torch.zeros(()))
            loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        optimizer.step()
        optimizer.zero_grad()


class _Stock(nn.Module):
    """The stock HuBERT, masked, with one linear head."""

    def __init__(self, config: object, notes: Path) -> None:
        super().__init__()
        from transformers import HubertModel

        self.hubert = HubertModel(config)  # pyright: ignore[reportArgumentType]
        self.head = nn.Linear(self.hubert.config.hidden_size, K)
        self._notes = notes
        self._step = 0

    def forward(
        self, input_values: Tensor, attention_mask: Tensor, labels: Tensor
    ) -> dict[str, Tensor]:
        write_note(self._notes, self._step, int(attention_mask.sum()), input_values.numel())
        self._step += 1
        mask_BT = torch.rand(labels.shape) < 0.5
        hidden_BTD = self.hubert(
            input_values, attention_mask=attention_mask, mask_time_indices=mask_BT
        ).last_hidden_state
        logits_BTK = self.head(hidden_BTD)
        chosen_BT = mask_BT & (labels >= 0)
        return {"loss": nn.functional.cross_entropy(logits_BTK[chosen_BT], labels[chosen_BT])}


class _Recordings(torch.utils.data.Dataset[dict[str, np.ndarray]]):
    """Recordings with their labels, which the collator pads."""

    def __init__(self, recipe: NotedRetrain) -> None:
        self._rows = recipe.utterances
        self._audio = AudioReader(recipe.corpus)
        self._labels = recipe._reader

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        (row,) = self._rows.rows([i])
        return {
            "input_values": pcm16_to_float(self._audio.samples(row)),
            "labels": self._labels.ids(row.utterance_id)[0].astype(np.int64),
        }


def train_by_trainer(
    recipe: NotedRetrain, rank: int, notes: Path, steps: int, batch: int, folder: str
) -> None:
    """The Trainer with its default sampler and padding, ``batch`` recordings per process and update."""
    from transformers import HubertConfig, Trainer, TrainingArguments
    from transformers import Wav2Vec2FeatureExtractor as Extractor

    files = recipe._backbone.read_files()
    config = HubertConfig(**json.loads(files["config.json"]))
    extractor = Extractor(return_attention_mask=True, do_normalize=False)

    def collate(rows: list[dict[str, np.ndarray]]) -> dict[str, Tensor]:
        padded = extractor.pad(
            {"input_values": [r["input_values"] for r in rows]},  # pyright: ignore[reportArgumentType]
            return_tensors="pt",
        )
        labels = [torch.from_numpy(r["labels"]) for r in rows]
        labels_BT = nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100)
        return {**padded, "labels": labels_BT}

    arguments = TrainingArguments(
        output_dir=f"{folder}/trainer-{rank}",
        per_device_train_batch_size=batch,
        max_steps=steps,
        max_grad_norm=CLIP_NORM,
        use_cpu=True,
        ddp_backend="gloo",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    Trainer(
        model=_Stock(config, notes),
        args=arguments,
        data_collator=collate,
        train_dataset=_Recordings(recipe),
    ).train()
