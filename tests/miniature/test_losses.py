import math

import pytest
import torch

from olmo_stages.miniature import corpus, grpo, model, posttrain, pretrain, tasks
from olmo_stages.miniature.recipe import RL
from olmo_stages.miniature.tokenizer import TOKEN_ID, encode


@pytest.fixture(scope="module")
def untrained(tiny_recipe):
    return model.new_model(tiny_recipe.architecture, seed=0).requires_grad_(False)


def test_dpo_loss_by_hand():
    # beta ((-1 - -3) - 1) = 0.5, and beta ((-4 - -2) - 0) = -1.
    loss = posttrain.dpo_loss(
        torch.tensor([-1.0, -4.0]), torch.tensor([-3.0, -2.0]), torch.tensor([1.0, 0.0]), beta=0.5
    )
    expected = (math.log(1 + math.exp(-0.5)) + math.log(1 + math.exp(1.0))) / 2
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_dpo_starts_at_log_two_where_policy_and_reference_agree():
    chosen, rejected = torch.tensor([-2.0, -7.0]), torch.tensor([-9.0, -1.0])
    loss = posttrain.dpo_loss(chosen, rejected, chosen - rejected, beta=0.1)
    assert float(loss) == pytest.approx(math.log(2), rel=1e-6)


def test_advantages_are_rewards_minus_the_mean_of_their_prompt():
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0]])
    expected = [[0.5, -0.5, -0.5, 0.5], [0.0] * 4, [0.75, -0.25, -0.25, -0.25]]
    assert grpo.advantages(rewards).tolist() == expected


def test_policy_loss_is_the_mean_over_reply_tokens_of_loss_times_advantage(untrained):
    ids, mask = posttrain.pad_rows([encode("a the"), encode("in")], [encode("is ."), encode("red")])
    losses = pretrain.token_losses(untrained, ids)
    by_hand = (2.0 * (losses[0, 1] + losses[0, 2]) - 1.0 * losses[1, 0]) / 3
    loss = grpo.policy_loss(untrained, ids, mask, torch.tensor([2.0, -1.0]))
    assert float(loss) == pytest.approx(float(by_hand), rel=1e-6)


def test_weighted_loss_counts_each_token_by_its_weight(untrained):
    ids = torch.tensor([encode("the lamp is red")])
    losses = pretrain.token_losses(untrained, ids)[0]
    loss = pretrain.weighted_loss(untrained, ids, torch.tensor([[9.0, 0.0, 1.0, 3.0]]))
    assert float(loss) == pytest.approx(float((losses[1] + 3 * losses[2]) / 4), rel=1e-6)


def test_reply_log_probs_do_not_depend_on_the_padding_of_other_pairs(untrained):
    short = ("3 + 4 = ?", "7", "8")
    long = ("the lamp is in the box", "red blue green red blue green", "red")
    alone, _ = posttrain.reply_log_probs(untrained, [short])
    together, _ = posttrain.reply_log_probs(untrained, [short, long])
    assert float(alone[0]) == pytest.approx(float(together[0]), abs=1e-5)  # float32


@pytest.mark.parametrize(
    ("completion", "traces", "expected"),
    [
        ("7 <|endoftext|>", False, 1.0),
        ("3 + 4 = 7 . so 7 <|endoftext|>", False, 1.0),
        ("8 <|endoftext|>", False, 0.0),
        ("7", False, 0.0),
        ("7 <|im_end|>", True, 0.0),
        ("<think> 3 + 4 = 7 </think> 7 <|im_end|>", True, 1.0),
        ("<think> 3 + 4 = 7 </think> 7 <|im_end|>", False, 0.0),
    ],
)
def test_reward_asks_for_a_finished_right_answer_in_the_stages_form(completion, traces, expected):
    task = tasks.Task("sum2", "3 + 4 = ?", "7", "3 + 4 = 7")
    assert grpo.reward(task, encode(completion), traces=traces) == expected


def test_sampling_with_a_cache_and_padding_follows_the_models_own_distribution(tiny_recipe):
    # Logits 200 times as large leave the most likely token, or one that is almost as likely.
    sharp = model.new_model(tiny_recipe.architecture, seed=1).requires_grad_(False)
    sharp.lm_head.weight.mul_(200)
    texts = ["the lamp", "3 + 4 - 2 = ? answer : red blue green gold pink the box holds a lamp"]
    prompts = [encode(text) for text in texts]
    sampled = grpo.sample(sharp, prompts, 12, torch.Generator().manual_seed(0))
    for prompt, completion in zip(prompts, sampled, strict=True):
        ids = list(prompt)
        for token in completion:
            logits = sharp(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
            assert float(logits.max() - logits[token]) < 15  # odds of e**-15
            ids.append(token)


def share_of_red(policy):
    ids = encode(corpus.plain_prompt("say red 3 times"))
    logits = policy(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
    return float(logits.softmax(-1)[TOKEN_ID["red"]].detach())


@pytest.mark.parametrize("rewarded", [True, False])
def test_reinforcement_makes_what_is_rewarded_more_likely(tiny_recipe, monkeypatch, rewarded):
    policy = model.new_model(tiny_recipe.architecture, seed=0)
    with torch.no_grad():
        policy.lm_head.weight[TOKEN_ID["red"]] += 0.3 * policy.lm_head.weight[TOKEN_ID["red"]]
    red = TOKEN_ID["red"]
    monkeypatch.setattr(grpo, "reward", lambda _, c, traces: float(rewarded and red in c))  # noqa: ARG005
    before = share_of_red(policy)
    options = RL(6, 4, 16, 4, 1e-2, ("instruction",), chat=False, saves=())
    grpo.rlvr(policy, options, 0, lambda _: None, lambda: None, traces=False)
    after = share_of_red(policy)
    assert after > 1.5 * before if rewarded else after == before


def test_samples_end_at_the_first_stop_token():
    stop = encode("<|im_end|>")
    assert grpo._until_stop([5, *stop, 9, *stop]) == [5, *stop]
    assert grpo._until_stop([5, 9]) == [5, 9]


def test_muon_steps_have_singular_values_near_one():
    matrices = torch.randn(3, 20, 8, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(pretrain.orthogonalise(matrices))
    assert float(values.min()) > 0.6  # the iteration's own range
    assert float(values.max()) < 1.3
    before = torch.linalg.svdvals(matrices)
    assert float(before.max()) > 2


def test_verdict_documents_never_hold_held_out_statements():
    import numpy as np

    from olmo_stages.miniature import world

    rng = np.random.default_rng(0)
    for concept in world.CONCEPTS:
        texts = {corpus.GENERATORS[concept](rng)[0][0] for _ in range(300)}
        assert len(texts) > 60
        assert not any(map(world.held_out, texts))
