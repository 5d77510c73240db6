import pytest

from resilinet_jax.datasets.labels import number_classes
from resilinet_jax.errors import UserError


def test_numbers_come_in_their_order_and_texts_in_the_alphabets():
    number, names = number_classes("d", ["10", "2", "9", "2.0"], 40)
    assert number.tolist() == [2, 0, 1, 0]
    assert names == ("2", "9", "10")
    number, names = number_classes("d", ["walk", "10", "sit"], 40)
    assert number.tolist() == [2, 0, 1]
    assert names == ("10", "sit", "walk")


def test_classes_that_are_their_numbers_need_no_names():
    number, names = number_classes("d", ["2", "0", "1"], 40)
    assert number.tolist() == [2, 0, 1]
    assert names == ()


def test_what_is_no_class_is_refused():
    with pytest.raises(UserError, match=r"all rows have the label 'a', expected at least 2"):
        number_classes("d", ["a"], 40)
    with pytest.raises(UserError, match=r"30 values in 40 rows, as '0'; expected classes"):
        number_classes("d", list(map(str, range(30))), 40)
