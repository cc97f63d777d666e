import pytest

from olmo_stages.miniature.recipe import DPO, RL, SFT, Architecture, Pretraining, Recipe


@pytest.fixture(scope="session")
def tiny_recipe() -> Recipe:
    """A recipe that takes a second: two small layers and two or three steps a stage."""
    rl = RL(2, 2, 3, 6, 1e-3, ("sum2", "code"), chat=False, saves=(1,))
    post = {
        "think_sft": SFT(2, 2, 1e-3, traces=True, saves=(1,)),
        "think_dpo": DPO(2, 2, 1e-3, 0.1, traces=True),
        "think_rlvr": RL(2, 2, 3, 6, 1e-3, ("sum2", "code"), chat=True, saves=(1,)),
        "instruct_sft": SFT(2, 2, 1e-3, traces=False, saves=(1,)),
        "instruct_dpo": DPO(2, 2, 1e-3, 0.1, traces=False),
        "instruct_rlvr": RL(2, 2, 3, 6, 1e-3, ("sum2", "code"), chat=True, saves=(1,)),
        "olmo2_sft": SFT(2, 2, 1e-3, traces=False, saves=(1,)),
        "olmo2_dpo": DPO(2, 2, 1e-3, 0.1, traces=False),
        "olmo2_instruct": RL(2, 2, 3, 6, 1e-3, ("sum2", "code"), chat=True, saves=(1,)),
        **{f"rl_zero_{name}": rl for name in ("math", "code", "if", "general", "mix")},
    }
    phases = (Pretraining(3, 2, 16, (0, 2)), Pretraining(1, 2, 16, (1,)), Pretraining(2, 2, 24, ()))
    olmo2 = (phases[0], Pretraining(2, 2, 16, (1,)))
    return Recipe(Architecture(2, 16, 32, 2, 8, 128), phases, olmo2, post=post)
