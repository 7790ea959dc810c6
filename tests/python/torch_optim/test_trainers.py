"""optimisers.torch in the hands of transformers, Lightning and accelerate: trained, stopped, resumed, the same bits."""

import argparse
from pathlib import Path

import pytest
import torch
from torch_training import flat, network

import optimisers.torch as ot

TEXT = torch.frombuffer(bytearray(Path(argparse.__file__).read_bytes()), dtype=torch.uint8).long()
WHY = "is not installed; `make test` installs it where it can"


def test_accelerate_resumes_with_the_same_bits(tmp_path):
    accelerate = pytest.importorskip("accelerate", reason=f"accelerate {WHY}")

    def run(first, last, resume=None, save=None, library=ot):
        accelerator = accelerate.Accelerator(cpu=True)
        model = network()
        optimizer = library.AdamW(model.parameters(), lr=0.02)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        model, optimizer, scheduler = accelerator.prepare(model, optimizer, scheduler)
        if resume:
            accelerator.load_state(resume)
        for step in range(first, last):
            torch.manual_seed(step)
            accelerator.backward(model(torch.randn(8, 4)).pow(2).mean())
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        if save:
            accelerator.save_state(save)
        return flat(model)

    whole = run(0, 8)
    run(0, 5, save=str(tmp_path))
    assert torch.equal(run(5, 8, resume=str(tmp_path)), whole)
    assert torch.allclose(run(0, 8, library=torch.optim), whole, atol=1e-6)


def test_the_trainer_of_transformers_resumes_with_the_same_bits(tmp_path):
    transformers = pytest.importorskip("transformers", reason=f"transformers {WHY}")
    pytest.importorskip("accelerate", reason=f"accelerate {WHY}, and the Trainer needs it")

    class Pieces(torch.utils.data.Dataset):
        def __len__(self):
            return 64

        def __getitem__(self, i):
            piece = TEXT[32 * i : 32 * i + 32]
            return {"input_ids": piece, "labels": piece}

    def run(folder, resume=None, stop=None, library=ot):
        torch.manual_seed(0)
        config = transformers.GPT2Config(
            vocab_size=256, n_positions=32, n_embd=16, n_layer=1, n_head=2, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0
        )
        model = transformers.GPT2LMHeadModel(config)
        arguments = transformers.TrainingArguments(
            folder, max_steps=8, save_steps=4, per_device_train_batch_size=4, learning_rate=1e-2, weight_decay=0.1,
            report_to=[], use_cpu=True, logging_steps=1, disable_tqdm=True, seed=3,
        )  # fmt: skip
        trainer = transformers.Trainer(
            model=model, args=arguments, train_dataset=Pieces(), optimizer_cls_and_kwargs=(library.AdamW, {"lr": 1e-2})
        )
        if stop:

            class Stop(transformers.TrainerCallback):
                def on_step_end(self, args, state, control, **kwargs):
                    control.should_training_stop = state.global_step >= stop

            trainer.add_callback(Stop())
        trainer.train(resume_from_checkpoint=resume)
        return flat(model)

    whole = run(str(tmp_path / "whole"))
    run(str(tmp_path / "part"), stop=4)
    assert torch.equal(run(str(tmp_path / "rest"), resume=str(tmp_path / "part" / "checkpoint-4")), whole)
    assert torch.allclose(run(str(tmp_path / "torch"), library=torch.optim), whole, atol=1e-4)


@pytest.mark.parametrize("automatic", [True, False], ids=["automatic", "manual"])
def test_lightning_resumes_with_the_same_bits(automatic, tmp_path):
    lightning = pytest.importorskip("lightning", reason=f"lightning {WHY}")

    def module_of(library):
        class Module(lightning.LightningModule):
            def __init__(self):
                super().__init__()
                self.net = network()
                self.automatic_optimization = automatic

            def training_step(self, batch, index):
                loss = self.net(batch).pow(2).mean()
                if not automatic:
                    optimizer = self.optimizers()
                    optimizer.zero_grad()
                    self.manual_backward(loss)
                    optimizer.step()
                return loss

            def configure_optimizers(self):
                return library.AdamW(self.parameters(), lr=0.02)

        return Module()

    torch.manual_seed(5)
    data = torch.utils.data.DataLoader(torch.randn(32, 4), batch_size=8)

    def run(epochs, library=ot, **fit):
        module = module_of(library)
        trainer = lightning.Trainer(
            max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
            default_root_dir=tmp_path, enable_checkpointing=False,
        )  # fmt: skip
        trainer.fit(module, data, **fit)
        return trainer, flat(module.net)

    whole = run(3)[1]
    run(2)[0].save_checkpoint(tmp_path / "two.ckpt")
    assert torch.equal(run(3, ckpt_path=tmp_path / "two.ckpt")[1], whole)
    assert torch.allclose(run(3, library=torch.optim)[1], whole, atol=1e-6)
