"""Where the dbt project is, how its manifest is made, and which part of a domain's models is built when.

Not here: what the models say (``dbt_project/``) and the assets that run them (``orchestration/defs``).
"""

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
# beside the interpreter: the environment need not be on PATH
DBT = Path(sys.executable).parent / "dbt"
AGORA = Path(sys.executable).parent / "agora"

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
    sources = [
        file
        for folder in (DBT_PROJECT, PROFILES, SEEDS)
        for pattern in ("*.sql", "*.yml", "*.csv")
        for file in folder.rglob(pattern)
        if "target" not in file.relative_to(CHECKOUT).parts
    ]
    return max(file.stat().st_mtime for file in sources)


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
