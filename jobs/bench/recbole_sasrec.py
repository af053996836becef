"""How long RecBole's SASRec takes to a validation NDCG@10, on the events and the split of jobs/beauty.yaml.

jobs/bench/recbole_install.sh DIR
DIR/bin/python jobs/bench/recbole_sasrec.py --input Beauty.txt.gz --folder FOLDER [--epochs 3] [--threads 2]

It runs in the environment of recbole_install.sh and imports nothing of raysparse. The model and the loss are those of
RecBole's defaults with the sizes of its published SASRec (width 64, 2 layers, 2 heads, history of 50, full softmax,
dropout 0.5); every prefix of a history is a row of its own, as RecBole learns. After each epoch one JSON line tells the
seconds since training began, scoring of the validation included, and the validation's NDCG@10 among all items; after
each that is the best so far also the test's, whose time is left out.
"""

import argparse
import gzip
import json
import os
import time
from pathlib import Path
from typing import Any

import torch

DATASET = "beauty"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", required=True, type=Path, help="a line per user: `user item item ...`, gzipped")
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    folder = arguments.folder.absolute()
    write_events(arguments.input, folder / DATASET / f"{DATASET}.inter")
    # RecBole leaves its logs where it is started.
    os.chdir(folder)
    print(json.dumps({"best": train(folder, arguments.epochs)}))


def write_events(source: Path, target: Path) -> None:
    """Write the sequences as RecBole's atomic file; the place in the sequence stands for the time."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(source, "rt", encoding="utf-8") as lines, target.open("w", encoding="utf-8") as file:
        file.write("user_id:token\titem_id:token\ttimestamp:float\n")
        for line in lines:
            user, *items = line.split()
            file.writelines(f"{user}\t{item}\t{place}\n" for place, item in enumerate(items))


def train(folder: Path, epochs: int) -> float:
    from recbole.config import Config  # pyright: ignore[reportMissingImports]
    from recbole.data import create_dataset, data_preparation  # pyright: ignore[reportMissingImports]
    from recbole.model.sequential_recommender import SASRec  # pyright: ignore[reportMissingImports]
    from recbole.trainer import Trainer  # pyright: ignore[reportMissingImports]
    from recbole.utils import init_seed  # pyright: ignore[reportMissingImports]

    config = Config(model="SASRec", dataset=DATASET, config_dict=settings(folder, epochs))
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    train_rows, validation, test = data_preparation(config, dataset)
    model = SASRec(config, train_rows.dataset).to(config["device"])
    trainer = Trainer(config, model)
    best, scoring_tests = 0.0, 0.0
    started = time.perf_counter()

    def tell(epoch: int, score: float) -> None:
        nonlocal best, scoring_tests
        ended = time.perf_counter()
        told = {"epoch": epoch, "seconds": round(ended - started - scoring_tests, 1), "ndcg@10": round(score, 4)}
        if score > best:
            best = score
            of_test = trainer.evaluate(test, load_best_model=False, show_progress=False)
            told["test"] = {name: float(value) for name, value in of_test.items()}
            scoring_tests += time.perf_counter() - ended
        print(json.dumps(told), flush=True)

    trainer.fit(train_rows, validation, saved=False, show_progress=False, callback_fn=tell, verbose=False)
    return round(best, 4)


def settings(folder: Path, epochs: int) -> dict[str, Any]:
    return {
        "data_path": str(folder),
        "checkpoint_dir": str(folder / "saved"),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "MAX_ITEM_LIST_LENGTH": 50,
        "hidden_size": 64,
        "inner_size": 256,
        "n_layers": 2,
        "n_heads": 2,
        "hidden_dropout_prob": 0.5,
        "attn_dropout_prob": 0.5,
        "loss_type": "CE",
        "train_neg_sample_args": None,
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full", "group_by": "user"},
        "metrics": ["NDCG", "Hit"],
        "topk": [10],
        "valid_metric": "NDCG@10",
        "train_batch_size": 256,
        "eval_batch_size": 1024,
        "learning_rate": 1e-3,
        "epochs": epochs,
        "eval_step": 1,
        "stopping_step": epochs,
        "use_gpu": False,
        "seed": 1,
    }


if __name__ == "__main__":
    main()
