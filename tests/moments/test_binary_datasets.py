import os
import pickle

import numpy as np
import pytest

from jepa_dyn.moments import load_images, read_cifar, read_stl10


def random_images(n, size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def cifar_rows(images):
    """Red plane, green plane, blue plane, each row by row."""
    return np.stack([np.concatenate([image[:, :, c].ravel() for c in range(3)]) for image in images])


def write_binary(file, images, label_bytes):
    labels = np.full((len(images), label_bytes), 7, np.uint8)
    np.hstack([labels, cifar_rows(images)]).tofile(file)


def test_cifar10_binary(tmp_path):
    images = random_images(5, 32)
    write_binary(tmp_path / "data_batch_1.bin", images[:3], 1)
    write_binary(tmp_path / "data_batch_2.bin", images[3:], 1)
    write_binary(tmp_path / "test_batch.bin", images[:1], 1)
    found = load_images(tmp_path)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(np.round(found * 255), images)
    np.testing.assert_array_equal(read_cifar(tmp_path, max_images=4), found[:4])
    np.testing.assert_array_equal(read_cifar(tmp_path, max_images=2), found[:2])
    np.testing.assert_array_equal(load_images(tmp_path, split="test"), found[:1])


def test_cifar100_binary_has_two_labels(tmp_path):
    images = random_images(3, 32)
    write_binary(tmp_path / "train.bin", images, 2)
    np.testing.assert_array_equal(np.round(load_images(tmp_path) * 255), images)


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("names", [("data_batch_1", "data_batch_2"), ("train",)])
@pytest.mark.parametrize("key", [b"data", "data"])
def test_cifar_python_version(tmp_path, protocol, names, key):
    images = random_images(2 * len(names), 32)
    for i, name in enumerate(names):
        content = {key: cifar_rows(images[2 * i : 2 * i + 2]), b"labels": [1, 2], b"filenames": [b"a.png", b"b.png"]}
        (tmp_path / name).write_bytes(pickle.dumps(content, protocol=protocol))
    np.testing.assert_array_equal(np.round(load_images(tmp_path) * 255), images)
    assert len(read_cifar(tmp_path, max_images=1)) == 1


def test_cifar_python_version_as_python_2_and_old_numpy_wrote_it(tmp_path):
    """The published files: protocol 2, byte strings as STRING opcodes, and the module's name before numpy 2."""
    image = random_images(1, 32)
    row = cifar_rows(image)
    body = b"U\x04data" + pickle.dumps(row, protocol=2)[2:-1].replace(
        b"numpy._core.multiarray", b"numpy.core.multiarray"
    )
    (tmp_path / "data_batch_1").write_bytes(b"\x80\x02}" + body + b"s.")
    assert b"numpy.core.multiarray" in (tmp_path / "data_batch_1").read_bytes()
    np.testing.assert_array_equal(np.round(read_cifar(tmp_path) * 255), image)


class Malicious:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


class Codec:
    def __reduce__(self):
        import _codecs

        return _codecs.encode, ("text", "rot13")


def test_a_pickle_cannot_run_code(tmp_path):
    target = tmp_path / "made_by_the_pickle"
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({b"data": Malicious(str(target))}))
    with pytest.raises(ValueError, match=r"data_batch_1' cannot be read as a CIFAR batch: it asks for \w+\.mkdir"):
        read_cifar(tmp_path)
    assert not target.exists()
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({b"data": Codec()}, protocol=2))
    with pytest.raises(ValueError, match="codec 'rot13'"):
        read_cifar(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a pickle",
        pickle.dumps({b"labels": [1]}),
        pickle.dumps([1]),
        pickle.dumps({b"data": np.zeros((2, 3072))}),
    ],
)
def test_damaged_python_batches_are_named(tmp_path, content):
    (tmp_path / "data_batch_1").write_bytes(content)
    with pytest.raises(ValueError, match="data_batch_1'"):
        load_images(tmp_path)


def test_stl10_is_stored_column_by_column(tmp_path):
    images = random_images(3, 96)
    columns = np.stack([np.stack([image[:, :, c].ravel(order="F") for c in range(3)]) for image in images])
    columns.tofile(tmp_path / "train_X.bin")
    columns[:1].tofile(tmp_path / "unlabeled_X.bin")
    np.testing.assert_array_equal(np.round(load_images(tmp_path) * 255), images)
    np.testing.assert_array_equal(read_stl10(tmp_path, max_images=2), load_images(tmp_path)[:2])
    assert len(load_images(tmp_path, split="unlabeled")) == 1
    with pytest.raises(ValueError, match=r"the STL-10 file 'test_X\.bin'"):
        load_images(tmp_path, split="test")


@pytest.mark.parametrize("folder", ["cifar-10-batches-bin", "cifar-100-binary"])
def test_the_folder_above_the_unpacked_archive_will_do(tmp_path, folder):
    (tmp_path / folder).mkdir()
    images = random_images(2, 32)
    ten = folder.startswith("cifar-10-")
    write_binary(tmp_path / folder / ("data_batch_1.bin" if ten else "train.bin"), images, 1 if ten else 2)
    np.testing.assert_array_equal(np.round(load_images(tmp_path) * 255), images)


def test_wrong_sizes_and_splits_are_named(tmp_path):
    (tmp_path / "data_batch_1.bin").write_bytes(b"x" * 3074)
    with pytest.raises(
        ValueError, match=r"data_batch_1\.bin' must hold a whole number of records of 3073 bytes, but has 3074"
    ):
        load_images(tmp_path)
    (tmp_path / "data_batch_1.bin").write_bytes(b"")
    with pytest.raises(ValueError, match="has 0 bytes"):
        load_images(tmp_path)
    with pytest.raises(ValueError, match="CIFAR files of the split 'test'"):
        load_images(tmp_path, split="test")
    with pytest.raises(ValueError, match="Did you mean 'train'"):
        load_images(tmp_path, split="trian")
    with pytest.raises(ValueError, match="`split` must be one of"):
        read_stl10(tmp_path, split="valid")
