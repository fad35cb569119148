"""Where the dbt project is, how its manifest is made, and which part of a domain's models is built when;
and how the steps of a run are called.

Not here: what the models say (``dbt_project/``) and the assets that run them (``orchestration/defs``).
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from warehouse import settings
from warehouse.files import lock

CHECKOUT = Path(__file__).resolve().parent.parent
DBT_PROJECT = CHECKOUT / "dbt_project"
PROFILES = CHECKOUT / "profiles"
SEEDS = CHECKOUT / "seeds"
CODE = ("warehouse", "ingestion", "ml", "governance", "orchestration")
# beside the interpreter: the environment need not be on PATH
DBT = Path(sys.executable).parent / "dbt"
AGORA = Path(sys.executable).parent / "agora"

# in plain words
STEP_NAMES = {
    "raw_ecommerce__events": "landing what lies in the drop folder",
    "ecommerce_models": "dbt: cleaning, sessions, features",
    "ml_ecommerce__customer_segments": "scikit-learn: fitting the segments",
    "ecommerce_marts": "dbt: building, testing and publishing the marts",
    "ecommerce__ecommerce__customer_segments_is_published": "checking the publication",
    "purge_expired": "removing what is past its time",
}

# dbt reads these on every start; the schema names of marts differ with every build, so nothing may be remembered
DBT_SETTINGS = {
    "DBT_PROFILES_DIR": str(PROFILES),
    "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
    # the caller's own would win over all that is said of time zones elsewhere
    "PGTZ": "UTC",
    # a Python asset splits the graph in two: a test runs where all of its parents have been built
    "DBT_INDIRECT_SELECTION": "buildable",
}


def after_ml(domain: str) -> str:
    """dbt selection of what is built after the machine learning of a domain: its output's staging, and the marts."""
    return f"source:ml_{domain}+ tag:marts_{domain}"


def production_target() -> str:
    """``server`` where ``PG*`` chooses one, else ``embedded``; ``DBT_TARGET`` overrides both."""
    return os.environ.get("DBT_TARGET") or ("server" if settings.uses_server() else "embedded")


def code_fingerprint() -> str:
    """What computes here: the code of Agora, the dbt project, and the versions of all they stand on."""
    digest = hashlib.sha256()
    code = [file for folder in CODE for file in _files(CHECKOUT / folder, "*.py", "*.sql")]
    for path in sorted([*code, *_dbt_files()]):
        digest.update(f"{path.relative_to(CHECKOUT)} {path.stat().st_size}\n".encode() + path.read_bytes())
    versions = CHECKOUT / "uv.lock"
    digest.update(versions.read_bytes() if versions.exists() else b"")
    return digest.hexdigest()


def manifest() -> Path:
    """Path of an up-to-date dbt manifest; parses the project (about 5 s) where a file is newer than the last one."""
    path = settings.home() / "dbt" / "manifest.json"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # dbt writes it in place: nobody may read it half-written
    with lock(path.parent / ".lock"):
        if not path.exists() or path.stat().st_mtime < _latest_change():
            _parse(path.parent)
    return path


def _latest_change() -> float:
    return max(file.stat().st_mtime for file in _dbt_files())


def _dbt_files() -> list[Path]:
    folders = (DBT_PROJECT, PROFILES, SEEDS)
    return [file for folder in folders for file in _files(folder, "*.sql", "*.yml", "*.csv")]


def _files(folder: Path, *patterns: str) -> list[Path]:
    found = [file for pattern in patterns for file in folder.rglob(pattern)]
    return [file for file in found if "target" not in file.relative_to(CHECKOUT).parts]


def _parse(target_directory: Path) -> None:
    # parsing needs a profile, not a database: placeholders stand in for the connection
    environment = (
        os.environ
        | DBT_SETTINGS
        | {
            "DBT_HOST": "localhost",
            "DBT_PORT": "5432",
            "DBT_TARGET": production_target(),
            "DBT_TARGET_PATH": str(target_directory),
            "DBT_LOG_PATH": str(target_directory),
        }
    )
    command = [str(DBT), "--quiet", "parse", "--project-dir", str(DBT_PROJECT)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RuntimeError(f"dbt cannot read the project:\n{result.stdout}{result.stderr}")
