"""Measures by name."""

from olmo_stages.similarity.canonical import PWCCA, SVCCA
from olmo_stages.similarity.linear import BiasedCKA, DebiasedCKA
from olmo_stages.similarity.measure import Fitted, PairTable
from olmo_stages.similarity.minibatch import MinibatchCKA
from olmo_stages.similarity.neighbours import MutualKNN
from olmo_stages.similarity.procrustes import Procrustes
from olmo_stages.similarity.rbf import RBFCKA
from olmo_stages.similarity.rsa import RSA

TABLES = ("debiased_cka", "biased_cka", "rbf_cka", "minibatch_cka", "rsa", "mutual_knn")
FITTED = ("procrustes", "svcca", "pwcca")


def pair_table(name: str, *, batch: int, neighbours: int) -> PairTable:
    """The measure of this name, which is one of `TABLES`."""
    made: dict[str, PairTable] = {
        "debiased_cka": DebiasedCKA(),
        "biased_cka": BiasedCKA(),
        "rbf_cka": RBFCKA(),
        "minibatch_cka": MinibatchCKA(batch),
        "rsa": RSA(),
        "mutual_knn": MutualKNN(neighbours),
    }
    return made[name]


def fitted(name: str, *, n_components: int, variance: float) -> Fitted:
    """The measure of this name, which is one of `FITTED`."""
    made: dict[str, Fitted] = {
        "procrustes": Procrustes(n_components, n_folds=5),
        "svcca": SVCCA(variance),
        "pwcca": PWCCA(variance),
    }
    return made[name]
