"""Images with classes: digits, CIFAR and STL-10 files written here, folders of folders."""

import pickle

import numpy as np
import pytest

from jepa_dyn.moments import load_labelled_images, read_cifar_labels, read_stl10_labels


def rows(labels, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (len(labels), 3072), dtype=np.uint8)
    return np.hstack([np.asarray(labels, np.uint8).reshape(len(labels), -1), pixels])


def test_digits():
    images, labels = load_labelled_images()
    others, other_labels = load_labelled_images(split="test")
    assert images.shape == (1438, 8, 8, 1) and images.dtype == np.float32 and images.max() == 1
    assert len(others) == 359 and set(labels) == set(other_labels) == set(range(10))
    few, few_labels = load_labelled_images(max_images=3)
    np.testing.assert_array_equal(few, images[:3])
    np.testing.assert_array_equal(few_labels, labels[:3])


def test_cifar(tmp_path):
    rows([3, 9]).tofile(tmp_path / "data_batch_1.bin")
    rows([1]).tofile(tmp_path / "data_batch_2.bin")
    images, labels = load_labelled_images(tmp_path)
    assert images.shape == (3, 32, 32, 3)
    np.testing.assert_array_equal(labels, [3, 9, 1])
    np.testing.assert_array_equal(read_cifar_labels(tmp_path, max_images=2), [3, 9])


def test_the_fine_labels_of_cifar100(tmp_path):
    rows([[19, 99], [4, 0]]).tofile(tmp_path / "train.bin")
    np.testing.assert_array_equal(read_cifar_labels(tmp_path), [99, 0])
    content = {b"data": rows([0, 0])[:, 1:], b"fine_labels": [98, 5], b"coarse_labels": [1, 2]}
    (tmp_path / "test").write_bytes(pickle.dumps(content))
    np.testing.assert_array_equal(read_cifar_labels(tmp_path, split="test"), [98, 5])
    (tmp_path / "test").write_bytes(pickle.dumps(content | {b"fine_labels": [98]}))
    with pytest.raises(ValueError, match="must hold one class per image"):
        read_cifar_labels(tmp_path, split="test")


def test_stl10(tmp_path):
    np.array([1, 10, 2], np.uint8).tofile(tmp_path / "train_y.bin")
    np.zeros((3, 3 * 96 * 96), np.uint8).tofile(tmp_path / "train_X.bin")
    images, labels = load_labelled_images(tmp_path, max_images=2)
    assert images.shape == (2, 96, 96, 3)
    np.testing.assert_array_equal(labels, [0, 9])
    np.array([0], np.uint8).tofile(tmp_path / "train_y.bin")
    with pytest.raises(ValueError, match="classes from 1 to 10"):
        read_stl10_labels(tmp_path)
    with pytest.raises(ValueError, match=r"STL-10 file 'test_y\.bin'"):
        read_stl10_labels(tmp_path, split="test")


def test_a_folder_for_each_class(tmp_path):
    from PIL import Image

    for name, grey in (("b/1.png", 200), ("a/x/1.png", 100), ("a/2.png", 50)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3), (grey, grey, grey)).save(tmp_path / name)
    images, labels = load_labelled_images(tmp_path)
    assert [round(float(image[0, 0, 0]) * 255) for image in images] == [50, 100, 200]
    np.testing.assert_array_equal(labels, [0, 0, 1])
    with pytest.raises(ValueError, match="subfolder for each class"):
        load_labelled_images(tmp_path / "b")
    with pytest.raises(ValueError, match="must be one of 'train', 'test'"):
        load_labelled_images(split="unlabeled")
