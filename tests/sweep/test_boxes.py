"""Boxes: every point in exactly one, numbers against numpy's, sizes that were asked for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jepa_dyn.sweep.boxes import Boxes, cut


@settings(max_examples=30, derandomize=True)
@given(st.lists(st.integers(1, 7), max_size=4), st.integers(1, 60), st.data())
def test_every_point_is_in_one_box(shape, most, data):
    dims = range(len(shape))
    single = data.draw(st.sets(st.sampled_from(dims)) if shape else st.just(set()))
    boxes = cut(
        shape, most, single=single, first=data.draw(st.sets(st.sampled_from(dims)) if shape else st.just(set()))
    )
    assert boxes.points <= max(most, 1) and all(boxes.box[dim] == 1 for dim in single)
    order = data.draw(st.permutations(dims))
    whole, seen = np.arange(int(np.prod(shape, dtype=int))).reshape(shape), np.zeros(shape, int)
    for number in range(len(boxes)):
        region = boxes.region(number)
        seen[region] += 1
        assert boxes.valid_points(number) == whole[region].size
        plain = boxes.numbers(number).reshape(boxes.box)
        np.testing.assert_array_equal(plain[boxes.inside(number)], whole[region])
        turned = boxes.numbers(number, order).reshape([boxes.box[dim] for dim in order])
        np.testing.assert_array_equal(turned, plain.transpose(order))
        assert set(plain.ravel()) == set(whole[region].ravel())  # what stands out repeats what is inside
    assert (seen == 1).all()


@pytest.mark.parametrize(
    ("shape", "most", "options", "box"),
    [
        ((50, 40), 128, {}, (3, 40)),
        ((10,), 9, {}, (5,)),  # two equal blocks instead of 9 and 1
        ((4, 100), 100, {"first": {0}}, (4, 25)),
        ((4, 100), 100, {"single": {1}}, (4, 1)),
        ((), 5, {}, ()),
    ],
)
def test_shape_of_the_boxes(shape, most, options, box):
    assert cut(shape, most, **options).box == box


def test_numbers_beyond_32_bits():
    boxes = Boxes((10**6, 10**6), (1, 1000))
    assert boxes.numbers(len(boxes) - 1)[-1] == 10**12 - 1
