"""The order of training samples: every sample once an epoch, the same for whoever asks, from any step on."""

import numpy as np
import pytest

from ramflow.data.order import Order

DIGEST = "sha256:" + "5" * 64
SHARDS = [range(0, 7), range(7, 20), range(20, 20), range(20, 21), range(21, 40), range(40, 55)]
USABLE = np.array([s for s in range(55) if s not in (3, 20, 41, 42)])  # shard 3 has none left


def order(seed=0, digest=DIGEST, window=2, samples=USABLE) -> Order:
    return Order(samples, SHARDS, seed, digest, window)


def samples_of(requests) -> list[int]:
    return [n for request in requests for n in request.samples.tolist()]


@pytest.mark.parametrize("batch", [1, 4, 17, 51, 80])
@pytest.mark.parametrize("window", [1, 2, 100])
def test_every_sample_exactly_once_an_epoch(batch, window):
    requests = list(order(window=window).batches(batch, epochs=3))
    assert len(requests) == 3 * order().steps(batch)
    for epoch in range(3):
        assert sorted(samples_of(r for r in requests if r.epoch == epoch)) == USABLE.tolist()
    assert all(len(r.samples) == batch for r in requests if r.position + batch <= len(USABLE))


def test_another_epoch_seed_or_dataset_is_another_order():
    same = samples_of(order().batches(4, 1))
    assert samples_of(order().batches(4, 1)) == same
    others = [
        samples_of(r for r in order().batches(4, 2) if r.epoch == 1),
        samples_of(order(seed=1).batches(4, 1)),
        samples_of(order(digest="sha256:" + "6" * 64).batches(4, 1)),
    ]
    assert all(other != same for other in others)
    assert len({tuple(other) for other in others}) == 3


@pytest.mark.parametrize("start", [0, 1, 12, 13, 25, 38])
def test_a_run_goes_on_from_its_step_alone(start):
    whole = list(order().batches(4, epochs=3))
    rest = list(order().batches(4, epochs=3, start=start))
    assert len(rest) == len(whole) - start
    for a, b in zip(rest, whole[start:], strict=True):
        assert (a.epoch, a.position, a.samples.tolist()) == (b.epoch, b.position, b.samples.tolist())


def test_nothing_before_the_step_asked_for_is_drawn():
    drawn = []
    late = order(window=1)
    inner = late._draw_window
    late._mixed = lambda epoch, window: drawn.append((epoch, window)) or inner(epoch, window)
    next(late.batches(4, epochs=1000, start=999 * late.steps(4) + 5))
    assert {epoch for epoch, _ in drawn} == {999} and len(drawn) <= 2


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_ranks_share_every_batch_without_repeating_or_dropping(world):
    whole = list(order().batches(8, epochs=2))
    ranks = [list(order().batches(8, epochs=2, rank=rank, world=world)) for rank in range(world)]
    for step, request in enumerate(whole):
        own = [rank[step].samples.tolist() for rank in ranks]
        together = [0] * len(request.samples)
        for rank, numbers in enumerate(own):
            together[rank::world] = numbers
        assert together == request.samples.tolist()


def test_a_rank_without_a_sample_of_the_last_batch_still_has_the_step():
    last = [list(order(samples=USABLE[:5]).batches(4, 1, rank=rank, world=2))[-1] for rank in range(2)]
    assert [len(request.samples) for request in last] == [1, 0]


def test_samples_are_mixed_within_a_window_of_shards_and_not_beyond():
    epoch = order().epoch(0)
    shard_of = {sample: number for number, shard in enumerate(SHARDS) for sample in shard}
    numbers = order().at(0, 0, len(USABLE)).tolist()
    for window, (start, end) in enumerate(zip(epoch.starts, epoch.starts[1:], strict=False)):
        there = [shard_of[n] for n in numbers[start:end]]
        assert set(there) == set(epoch.windows[window].tolist())
        assert there != sorted(there)
    assert sorted(np.concatenate(epoch.windows).tolist()) == [0, 1, 4, 5]
    assert epoch.windows[0].tolist() != order().epoch(1).windows[0].tolist()


def test_shards_and_samples_come_at_every_place_equally_often():
    first = np.zeros(55, int)
    for epoch in range(2000):
        first[order(window=100).at(epoch, 0, 1)[0]] += 1
    counts = first[USABLE]
    expected = 2000 / len(USABLE)
    assert first.sum() == counts.sum()
    chi2 = ((counts - expected) ** 2 / expected).sum()
    assert chi2 < 87.97  # 99.9 % point of chi-squared with 50 degrees of freedom


def test_seen_counts_samples_of_whole_and_partial_epochs():
    sizes = [len(r.samples) for r in order().batches(4, epochs=2)]
    assert [order().seen(steps, 4) for steps in range(len(sizes))] == [sum(sizes[:n]) for n in range(len(sizes))]


def test_takes_a_few_bytes_a_sample_and_knows_any_window_of_four_million_alone():
    shards = [range(i * 1700, (i + 1) * 1700) for i in range(2280)]
    large = Order(np.arange(2280 * 1700), shards, 0, DIGEST, 64)
    assert large._samples.nbytes == 4 * len(large)
    request = next(large.batches(416, epochs=5, start=3 * large.steps(416) + 4321))
    assert request.epoch == 3 and len(set(request.samples.tolist())) == 416
    assert large._mixed.cache_info().currsize <= 2


def test_samples_that_are_in_no_shard_are_refused():
    with pytest.raises(AssertionError, match="outside the shards"):
        Order(np.array([1, 60]), SHARDS, 0, DIGEST, 2)
