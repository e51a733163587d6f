import numpy as np

from ramflow.report.gallery import choose, f1_by_image


def test_agreement_is_the_f1_of_an_images_tags() -> None:
    said = np.array([[1, 1, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0]], bool)
    true = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 0, 0]], bool)
    assert f1_by_image(said, true).tolist() == [0.5, 1.0, 1.0, 0.0]


def test_the_choice_is_best_then_spaced_then_worst_without_repeats() -> None:
    agreement = np.linspace(0, 1, 50)
    chosen = choose(agreement, np.ones(50, int), 12)
    assert [why for _, why in chosen] == ["best"] * 2 + [""] * 8 + ["worst"] * 2
    assert [i for i, why in chosen if why == "best"] == [49, 48]
    assert [i for i, why in chosen if why == "worst"] == [0, 1]
    spaced = [i for i, why in chosen if not why]
    assert spaced == sorted(spaced) and len({i for i, _ in chosen}) == 12
    assert max(np.diff(spaced)) <= 7


def test_of_equal_images_the_one_with_more_tags_is_shown() -> None:
    assert choose(np.ones(20), np.array([1] * 19 + [5]), 6)[0] == (19, "best")


def test_a_small_split_is_shown_whole_and_none_is_fine() -> None:
    assert choose(np.array([0.5, 1.0]), np.array([1, 1]), 24) == [(0, ""), (1, "")]
    assert choose(np.zeros(0), np.zeros(0, int), 24) == []
    assert choose(np.ones(9), np.ones(9, int), 0) == []
