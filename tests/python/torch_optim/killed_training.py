"""A training in a process of its own, for test_trainers: `python killed_training.py TRAINER FOLDER WAY LIBRARY`.

WAY is `whole`, or `killed` (by SIGKILL, when a checkpoint is there and more steps were made), or `resumed`. Each loss
is appended to FOLDER/WAY.txt as the hexadecimal of its bits, with the number of its step.
"""

import argparse
import importlib
import os
import signal
import sys
from pathlib import Path

import torch

STEPS, SAVED, KILLED = 8, 4, 6
TEXT = torch.frombuffer(bytearray(Path(argparse.__file__).read_bytes()), dtype=torch.uint8).long()


class Log:
    """Losses by step; kills its own process where that is asked for."""

    def __init__(self, folder, way):
        self.path, self.way = Path(folder) / f"{way}.txt", way

    def __call__(self, step, loss):
        with self.path.open("a") as file:
            file.write(f"{step} {float(loss).hex()}\n")
        if self.way == "killed" and step == KILLED:
            os.kill(os.getpid(), signal.SIGKILL)


def pieces(n):
    return TEXT[: 32 * n].view(n, 32)


def small_gpt():
    import transformers

    torch.manual_seed(0)
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=256, n_positions=32, n_embd=16, n_layer=1, n_head=2, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0
        )
    )


def network():
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Embedding(256, 16), torch.nn.Linear(16, 256))


def loss_of(model, batch):
    return torch.nn.functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())


def accelerate(folder, resume, library, log):
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model = network()
    optimizer = library.AdamW(model.parameters(), lr=0.02)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    model, optimizer, scheduler = accelerator.prepare(model, optimizer, scheduler)
    if resume:
        accelerator.load_state(f"{folder}/saved")
    for step in range(SAVED if resume else 0, STEPS):
        loss = loss_of(model, pieces(STEPS * 4)[4 * step : 4 * step + 4])
        accelerator.backward(loss)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        if step + 1 == SAVED:
            accelerator.save_state(f"{folder}/saved")
        log(step + 1, loss)


def trainer(folder, resume, library, log):
    import transformers

    class Trainer(transformers.Trainer):
        def compute_loss(self, *args, **kwargs):
            loss = super().compute_loss(*args, **kwargs)
            log(self.state.global_step + 1, loss)
            return loss

    arguments = transformers.TrainingArguments(
        f"{folder}/checkpoints", max_steps=STEPS, save_steps=SAVED, per_device_train_batch_size=4, weight_decay=0.1,
        report_to=[], use_cpu=True, logging_steps=1, disable_tqdm=True, seed=3,
    )  # fmt: skip
    Trainer(
        model=small_gpt(), args=arguments, train_dataset=[{"input_ids": p, "labels": p} for p in pieces(64)],
        optimizer_cls_and_kwargs=(library.AdamW, {"lr": 1e-2}),
    ).train(resume_from_checkpoint=f"{folder}/checkpoints/checkpoint-{SAVED}" if resume else None)  # fmt: skip


def lightning(folder, resume, library, log, automatic=True):
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = network()
            self.automatic_optimization = automatic

        def training_step(self, batch, index):
            loss = loss_of(self.net, batch)
            if not automatic:
                optimizer = self.optimizers()
                optimizer.zero_grad()
                self.manual_backward(loss)
                optimizer.step()
            log(self.current_epoch * 2 + index + 1, loss.detach())
            return loss

        def configure_optimizers(self):
            return library.AdamW(self.parameters(), lr=0.02)

    saves = lightning.pytorch.callbacks.ModelCheckpoint(
        folder, "saved", every_n_epochs=SAVED // 2, save_top_k=-1, save_on_train_epoch_end=True
    )
    batches = torch.utils.data.DataLoader(pieces(8), batch_size=4)
    lightning.Trainer(
        max_epochs=STEPS // 2, accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[saves],
        enable_model_summary=False, default_root_dir=folder,
    ).fit(Module(), batches, ckpt_path=f"{folder}/saved.ckpt" if resume else None)  # fmt: skip


def lightning_manual(*args):
    lightning(*args, automatic=False)


if __name__ == "__main__":
    kind, where, how, module = sys.argv[1:]
    torch.use_deterministic_algorithms(True)
    globals()[kind](where, how == "resumed", importlib.import_module(module), Log(where, how))
