import subprocess
import sys


def test_importing_moments_imports_no_heavy_package_and_changes_no_setting():
    program = (
        "import sys, jax; before = jax.config.jax_enable_x64; import jepa_dyn.moments; "
        "assert jax.config.jax_enable_x64 == before; "
        "print([m for m in ('sklearn', 'PIL', 'matplotlib', 'xarray', 'zarr') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    imported = result.stdout.strip()
    assert "sklearn" not in imported and "PIL" not in imported and "matplotlib" not in imported
    assert "xarray" not in imported and "zarr" not in imported
