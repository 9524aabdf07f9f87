"""Stores: the same values as in memory, opened half done, continued, refused, damaged, full, gone."""

import json
import os
import shutil
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray

from jepa_dyn.status import Status
from jepa_dyn.sweep import (
    Grid,
    Reduce,
    StoreError,
    SweepDrained,
    SweepMismatch,
    axis,
    open_sweep,
    quantiles,
    static,
    status,
    sweep,
    verify,
)
from jepa_dyn.sweep.boxes import Boxes
from jepa_dyn.sweep.store import Store
from jepa_dyn.sweep.stored import work_order

GRID = Grid(lam=axis([0.5, 1.0, 2.0, 4.0, 8.0], units="1/s"), rho=np.linspace(0.1, 0.9, 7), decay=0.25)
TIMES = np.linspace(0.0, 1.0, 4)
CALLS = []


def fn(lam, rho, decay, key):
    w = lam * jnp.exp(-rho * jnp.linspace(0.0, 1.0, 4))
    bad = lam * rho > 6
    return {
        "w": ("time", jnp.where(bad, jnp.nan, w), {"units": "a.u."}),
        "rate": lam * rho - decay,
        "n": (rho > 0.5).astype(jnp.int32) + 1,
        "status": jnp.where(bad, Status.diverged, Status.ok).astype(jnp.uint8),
    }


def run(folder, function=fn, grid=GRID, **options):
    given = {"key": jax.random.key(1), "coords": {"time": (TIMES, {"units": "s"})}, "chunk_size": 6, "progress": False}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*points failed")
        return sweep(function, grid, **given | {"store": folder} | options)


def files(folder):
    """Bytes of everything that holds data (not the summaries, which hold times)."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("c*"))
        if path.is_file() and path.parent.name != "block_summary"
    }


class Killed(BaseException):
    pass


def run_until(folder, block, **options):
    """A sweep that is cut off when it is about to write its block number `block`."""
    count = 0

    def dying(self, *arguments, original=Store.write):
        nonlocal count
        count += 1
        if count > block:
            raise Killed
        original(self, *arguments)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Store, "write", dying)
        run(folder, **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweeps") / "finished"
    run(folder)
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "copied")


def test_store_holds_what_memory_holds(finished):
    stored, memory = open_sweep(finished), run(None)
    for name in memory.variables:
        assert stored[name].dims == memory[name].dims and stored[name].dtype == memory[name].dtype
        np.testing.assert_array_equal(stored[name], memory[name])
    assert (
        stored.w.attrs == {"units": "a.u."}
        and stored.lam.attrs == {"units": "1/s"}
        and stored.time.attrs == {"units": "s"}
    )
    assert set(stored.coords) == set(memory.coords) and bool(stored.finished.all())
    assert stored.attrs["x64"] == 1 and stored.status.attrs["flag_meanings"].startswith("ok ")
    # plain xarray reads it, without us
    with xarray.open_zarr(finished, consolidated=False, chunks=None) as plain:
        assert plain.w.sel(lam=2.0, rho=0.1).dims == ("time",)


def test_failures_are_counted(finished):
    bad = np.isnan(open_sweep(finished).rate.where(open_sweep(finished).lam * open_sweep(finished).rho <= 6)).sum()
    with pytest.warns(
        UserWarning, match=rf"{int(bad)} of 35 points failed \({int(bad)} diverged, .* first at lam=8, rho=0.76"
    ):
        sweep(fn, GRID, key=jax.random.key(1), store=finished, coords={"time": TIMES}, progress=False)
    assert status(finished).failures.counts["diverged"] == bad > 0


@pytest.mark.parametrize("block", [0, 1, 4])
def test_cut_off_and_continued_is_the_same_bytes(finished, tmp_path, block):
    folder = tmp_path / "cut"
    run_until(folder, block)
    half = open_sweep(folder)
    done = half.finished.values
    assert not np.isnan(half.rate.values[done]).any() and np.isnan(half.rate.values[~done]).all()
    assert (half.status.values[~done] == 255).all() and (half.n.values[~done] == 0).all()
    found = status(folder)
    assert (found.finished_blocks, found.complete) == (block, False) and f"{done.sum()} of 35" in str(found)
    run(folder)
    assert files(folder) == files(finished)


def test_nothing_is_computed_twice(copied):
    (copied / "finished" / "c.2.0").unlink()
    computed = []
    with pytest.MonkeyPatch.context() as patch:
        original = Store.write
        patch.setattr(
            Store, "write", lambda self, number, *rest: (computed.append(number), original(self, number, *rest))
        )
        run(copied)
    assert [Boxes((5, 7), (1, 4)).place(number) for number in computed] == [(2, 0)]


def test_a_block_of_nothing_but_nan_stays(tmp_path):
    grid = Grid(a=np.arange(8.0))
    with pytest.warns(UserWarning, match="8 of 8 points failed"):
        sweep(lambda a: {"x": a * jnp.nan}, grid, store=tmp_path / "s", chunk_size=4, progress=False)
    assert verify(tmp_path / "s") == {} and bool(open_sweep(tmp_path / "s").finished.all())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": Grid(lam=[0.5, 1.0, 2.0, 4.0, 8.5], rho=np.linspace(0.1, 0.9, 7), decay=0.25)}, "values of axis `lam`. "),
        ({"grid": Grid(lam=[0.5], rho=np.linspace(0.1, 0.9, 7), decay=0.25)}, "`lam` \\(5 of them, now 1\\)"),
        ({"grid": Grid(lam=GRID.dims[0].axes["lam"], rho=GRID.dims[1].axes["rho"], decay=0.5)}, r"`decay` \(0.25, now 0.5"),
        ({"function": lambda lam, rho, decay, key: {n: (v * 2 if n == "rate" else v) for n, v in fn(lam, rho, decay, key).items()}},
         "the function computes something else"),
        ({"function": lambda lam, rho, decay, key: {"w": lam}}, "result `rate` \\(gone\\)"),
        ({"function": lambda lam, rho, decay, key: fn(lam, rho, decay, key) | {"n": lam}}, r"type of `n` \(int32, now float64"),
        ({"key": jax.random.key(2)}, "the key"),
        ({"reduce": Reduce("rho", rate=["mean"])}, "the reduction"),
    ],
)  # fmt: skip
def test_another_sweep_is_refused_by_name(copied, changes, message):
    before = files(copied)
    with pytest.raises(SweepMismatch, match=message) as caught:
        run(copied, **changes | {"coords": None})
    assert "\n" not in str(caught.value) and files(copied) == before


def test_another_number_type_is_refused(copied, float32):
    with pytest.raises(SweepMismatch, match="number type \\(x64 on, now off\\)"):
        run(copied)


def test_other_versions_are_refused_unless_allowed(copied):
    header = copied / "zarr.json"
    metadata = json.loads(header.read_text())
    metadata["attributes"]["jepa_dyn_sweep"]["setting"]["jax"] = "0.1.2"
    metadata["attributes"]["jepa_dyn_sweep"]["sweep"]["function"]["program"] = "as that version wrote it"
    header.write_text(json.dumps(metadata))
    (copied / "finished" / "c.0.0").unlink()
    with pytest.raises(SweepMismatch, match=r"other versions or on another device: jax \(0\.1\.2, now"):
        run(copied)
    assert bool(run(copied, allow_mixed_versions=True).finished.all())


def test_force_starts_beside_and_overwrites_nothing(copied):
    before = files(copied)
    again = run(copied, force=True, key=jax.random.key(5))
    assert again.attrs["store"] == f"{copied}-2" and files(copied) == before
    assert run(copied, force=True).attrs["store"] == f"{copied}-3"


def test_without_resume_a_store_is_left_alone(copied):
    with pytest.raises(StoreError, match=r"stored in .* already: resume continues it, force starts anew"):
        run(copied, resume=False)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("w/c.1.1.0", "bit"), ("w/c.1.1.0", "emptied"), ("rate/c.1.1", "cut"), ("rate/c.1.1", "deleted"),
        ("block_summary/c.3.0", "bit"), ("finished/c.1.1", "bit"), ("finished/c.1.1", "emptied"),
    ],
)  # fmt: skip
def test_damage_is_found_and_repaired(finished, copied, name, damage):
    path = copied / name
    content = bytearray(path.read_bytes())
    if damage == "deleted":
        path.unlink()
    else:
        content[len(content) // 2] ^= 4
        path.write_bytes({"bit": bytes(content), "cut": bytes(content[:-3]), "emptied": b""}[damage])
    found = verify(copied)
    if (name, damage) == ("finished/c.1.1", "emptied"):
        assert not status(copied).complete  # an empty mark is none
        run(copied)
    else:
        assert list(found) == [3] and found[3][0].startswith(name.split("/")[0])
        with pytest.warns(UserWarning, match="Block 3 .* is computed again"):
            run(copied)
    assert verify(copied) == {} and files(copied) == files(finished)


def test_verify_repairs_only_when_asked(copied):
    (copied / "rate" / "c.1.1").unlink()
    assert verify(copied) == verify(copied, repair=True) == {3: ["rate: missing"]}
    assert verify(copied) == {} and status(copied).finished_blocks == 9


def test_old_leftovers_are_removed_young_ones_are_not(copied):
    old, young = (copied / "w" / f"c.0.0.{name}.partial" for name in ("old", "young"))
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    run(copied)
    assert not old.exists() and young.exists()


def test_workers_share_without_talking(finished, tmp_path):
    folder = tmp_path / "shared"
    run_until(folder, 2, worker=(1, 2))  # one that dies
    assert status(folder).finished_blocks == 2
    run(folder, worker=(0, 2))
    assert files(folder) == files(finished)


def test_order_of_the_work(copied):
    store = Store.open(copied)
    assert list(work_order(store, 0, 3)) == []
    for number in range(10):
        store.discard(number)
    order = list(work_order(store, 1, 3))
    # its own first, then what is missing from the end, each once
    assert order[:3] == [1, 4, 7] and sorted(order) == list(range(10))
    assert order[3:] == [6, 5, 3, 2, 0, 9, 8]


def test_reduced_sweeps_are_stored_as_partial_results(tmp_path):
    grid = Grid(lam=[1.0, 2.0, 3.0]) * Grid.uniform(50, u=(0.0, 1.0))
    wanted = Reduce("draw", x=["mean", "std", "min", quantiles(0.5, low=0, high=3, bins=100)])
    folder = tmp_path / "reduced"

    def draw(lam, u):
        return {"x": lam * u, "y": u, "status": jnp.uint8(0)}

    options = {"grid": grid, "function": draw, "reduce": wanted, "key": None, "coords": None, "chunk_size": 16}
    run_until(folder, 2, **options)
    half = open_sweep(folder)
    assert int(half.x_count.sum()) in range(25, 35) and "y" not in half
    found, memory = run(folder, **options).load(), run(None, **options)
    assert set(found.variables) == set(memory.variables)
    for name in memory.variables:
        np.testing.assert_array_equal(found[name], memory[name])
    assert found.status_count.sel(outcome="ok").values.tolist() == [50] * 3 and status(folder).complete


def test_random_draws_and_static_axes_are_coordinates(tmp_path):
    grid = Grid.sobol(40, lam=(0.0, 1.0)) * Grid(objective=static(["jepa", "mae"]))

    def pick(lam, objective):
        return {"x": lam if objective == "jepa" else -lam}

    folder = tmp_path / "draws"
    options = {"grid": grid, "function": pick, "key": None, "coords": None, "chunk_size": 9}
    run_until(folder, 3, **options)
    assert 0 < np.isnan(open_sweep(folder).lam).sum() < 40
    found, memory = run(folder, **options), run(None, **options)
    assert found.x.dims == ("draw", "objective") and found.objective.values.tolist() == ["jepa", "mae"]
    for name in ("lam", "x"):
        np.testing.assert_array_equal(found[name], memory[name])
    assert verify(folder) == {}


def test_one_point_and_batched_functions(tmp_path):
    one = sweep(lambda a: {"x": 2 * a}, Grid(a=1.5), store=tmp_path / "one", progress=False)
    assert float(one.x) == 3.0 and verify(tmp_path / "one") == {}

    def batched(a):
        CALLS.append(a.shape)
        return {"x": np.asarray(a) ** 2}

    grid = Grid(a=np.arange(10.0))
    for _ in range(2):
        found = sweep(batched, grid, batched=True, store=tmp_path / "many", chunk_size=4, progress=False)
        np.testing.assert_array_equal(found.x, np.arange(10.0) ** 2)
    assert len(CALLS) == 3  # the one that told the shapes was kept, and nothing ran twice


def test_sizes_are_chosen(tmp_path):
    found = sweep(lambda a: {"x": a}, Grid(a=np.arange(5000.0)), store=tmp_path / "s", progress=False)
    np.testing.assert_array_equal(found.x, np.arange(5000.0))
    assert 2 <= status(tmp_path / "s").blocks <= 5


def test_asked_to_stop_it_finishes_what_it_began(finished, tmp_path):
    code = f"""
import os, signal, sys
sys.path.insert(0, {str(os.path.dirname(__file__))!r})
import jax; jax.config.update("jax_enable_x64", True)
import test_store
from jepa_dyn.sweep.store import Store
original = Store.write
def write(self, *rest):
    original(self, *rest)
    os.kill(os.getpid(), signal.SIGTERM)
Store.write = write
test_store.run({str(tmp_path / "drained")!r})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 75, done.stderr
    found = status(tmp_path / "drained")
    assert 1 <= found.finished_blocks <= 3 and verify(tmp_path / "drained") == {}
    run(tmp_path / "drained")
    assert files(tmp_path / "drained") == files(finished)
    assert SweepDrained("said").code == 75


def test_a_folder_that_vanishes_is_not_made_again(tmp_path):
    folder = tmp_path / "gone"

    def vanish(self, *rest, original=Store.write):
        shutil.rmtree(folder)
        original(self, *rest)

    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(StoreError, match="has vanished while the sweep ran") as caught,
    ):
        patch.setattr(Store, "write", vanish)
        run(folder)
    assert not folder.exists() and "\n" not in str(caught.value)


def test_a_full_disk_leaves_what_is_finished(finished, tmp_path):
    import zarr.storage._local as local

    folder, original, count = tmp_path / "full", local._put, 0

    def put(path, *rest, **options):
        nonlocal count
        count += "/c." in str(path)
        if count > 12:
            raise OSError(28, "No space left on device", str(path))
        return original(path, *rest, **options)

    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(StoreError, match="No space left on device; its 2 finished blocks"),
    ):
        patch.setattr(local, "_put", put)
        run(folder)
    assert verify(folder) == {} and status(folder).finished_blocks == 2
    run(folder)
    assert files(folder) == files(finished)


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda path: path.write_text("a file"), "something else is there"),
        (lambda path: (path.mkdir(), (path / "notes.txt").write_text("mine")), "something else is there"),
        (lambda path: path.parent.chmod(0o500), "Permission denied"),
    ],
)
def test_a_place_that_cannot_be_used(tmp_path, prepare, message):
    folder = tmp_path / "place"
    prepare(folder)
    if os.geteuid() == 0 and message == "Permission denied":
        pytest.skip("root may write anywhere")
    with pytest.raises(StoreError, match=message) as caught:
        run(folder)
    tmp_path.chmod(0o700)
    assert "\n" not in str(caught.value) and not list(tmp_path.glob(".*init"))


def test_no_sweep_there(tmp_path):
    for look in (open_sweep, status, verify):
        with pytest.raises(StoreError, match="no sweep is stored in"):
            look(tmp_path / "nothing")


def test_bad_worker(tmp_path):
    with pytest.raises(ValueError, match="0 <= rank < world, but is \\(2, 2\\)"):
        run(tmp_path / "s", worker=(2, 2))
