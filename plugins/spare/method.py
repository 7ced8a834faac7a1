"""SPARE: separate early and resample (Yang et al., AISTATS 2024)."""

from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score

from mmc_bench import BaseConfig, Choice
from mmc_bench.training import Backbone, Task, cross_entropy, widest_float


class SPARE:
    """Cluster the clean and the cued images of each class by what θ_C puts out for them, and train θ on Σ_i w_i CE_i,
    w_i ∝ 1/|cluster of i|^λ, with equal sums of w for all classes.

    The number of clusters is the one with the best silhouette; where that is low, the clusters are blurred, and λ is
    larger than 1. The authors draw images by w. Here a step takes a batch of the clean set, which is passed over once
    an epoch, and as many cued images, drawn by w, and the clean images' losses are weighted: in expectation the same.

    The paper clusters the outputs of the first epochs, which follow the spurious feature. θ_C was trained to the end
    and fits its training images; it never saw the clean ones, whose outputs lie apart where it relies on the cue.
    """

    class Config(BaseConfig):
        """The clusters at most are the authors' for their MNIST (BigML-CS-UCLA/SpuCo,
        quickstart/scripts/spuco_mnist/spuco_mnist_spare.py), the high power and the threshold their code's
        (src/spuco/group_inference/spare_inference.py, `SpareInference`); the rest is as in all fine-tuning here.
        """

        lr: float = Field(0.01, gt=0, description="initial learning rate, cosine to 0")
        epochs: int = Field(20, ge=1, description="passes over the clean set")
        batch_size: int = Field(256, ge=2, description="images in a batch, of each set")
        max_clusters: int = Field(5, ge=2, description="clusters of a class, at most")
        blurred_power: Annotated[int, Choice(1, 2, 3)] = Field(
            2, ge=0, description="λ of classes with blurred clusters"
        )
        threshold: float = Field(0.9, ge=-1, le=1, description="silhouette below which clusters are blurred")

    config: Config

    def fine_tune(self, task: Task) -> Backbone:
        """Return the fine-tuned model."""
        c = self.config
        pool, n = task.clean.joined(task.cued), len(task.clean)
        with torch.no_grad():
            outputs = torch.cat([task.pretrained(x).float().softmax(1) for x, _ in pool.in_order()])  # (N, K)
        seed = int(torch.randint(2**31, (), generator=task.generator, device=task.device))
        found = torch.from_numpy(self.weights(outputs.cpu().numpy(), pool.labels.cpu().numpy(), seed))
        weights = found.to(widest_float(task.device)).to(task.device)
        cued_share = weights[n:].sum()
        training = task.training(lr=c.lr, epochs=c.epochs, batch_size=c.batch_size)
        for rows in training.paired_rows(weights[n:]):
            x, y = pool.batch(rows)
            clean, cued = cross_entropy(training.logits(x), y, reduction="none").chunk(2)
            training.minimise(n * (weights[rows[: len(clean)]] * clean).mean() + cued_share * cued.mean())
        return task.model

    def weights(self, outputs: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
        """Return w (N,), which sums to 1, of images with outputs (N, K) and labels (N,)."""
        c = self.config
        weights = np.zeros(len(labels))
        for k in np.unique(labels):
            clusters, silhouette = clustered(outputs[labels == k], c.max_clusters, seed)
            power = 1 if silhouette >= c.threshold else c.blurred_power
            raw = 1.0 / np.bincount(clusters)[clusters].astype(float) ** power
            weights[labels == k] = raw / raw.sum()
        normalised: np.ndarray = weights / weights.sum()
        return normalised


def clustered(points: np.ndarray, most: int, seed: int) -> tuple[np.ndarray, float]:
    """Return the cluster (n,) of each of the points (n, K), and the silhouette, of the best k-means with 2 to `most`.

    Where there are too few distinct points for two clusters, there is one, and it counts as clear.
    """
    best, best_silhouette = np.zeros(len(points), dtype=int), 1.0
    most = min(most, len(points) - 1, len(np.unique(points, axis=0)))
    found = [KMeans(number, n_init=10, random_state=seed).fit_predict(points) for number in range(2, most + 1)]
    scored = [(silhouette_score(points, clusters), clusters) for clusters in found if len(np.unique(clusters)) > 1]
    if scored:
        best_silhouette, best = max(scored, key=lambda pair: pair[0])
    return best, float(best_silhouette)
