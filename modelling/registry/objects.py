"""Model folders by digest: written once, never changed, checked whenever they are used."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import mkdtemp

from modelling.errors import CheckpointDigestError, CheckpointFormatError
from modelling.registry.folder import CARD, CONFIG, CURVES, METRICS, WEIGHTS, ModelFolder, read_folder
from validation.contracts import file_digest

KEPT = (
    WEIGHTS,
    CONFIG,
    CARD,
    METRICS,
    CURVES,
    "evaluation.html",
    "evaluation.json",
    "reference/reference.parquet",
    "reference/axes.npz",
)
"""The files of a model that the registry takes: weights, JSON, a picture, a page, and the drift reference."""
EXECUTABLE = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".joblib", ".npy", ".py", ".so", ".h5")


class ModelObjects:
    """A folder of model folders, each named by its digest.

    Parameters
    ----------
    root
        Where they lie; made when the first model comes.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, digest: str) -> Path:
        """Return where a model lies or would lie."""
        return self.root / digest

    def take(self, folder: Path) -> tuple[ModelFolder, dict[str, str]]:
        """Copy a checked model folder and return it with the SHA-256 of each of its files.

        Raises
        ------
        CheckpointFormatError
            If the folder holds a file that could carry code, a link, or no safetensors weights.
        CheckpointDigestError
            If weights or configuration are not those of the card, or another folder has this digest.
        """
        for item in sorted(folder.rglob("*")):
            if item.is_symlink():
                raise CheckpointFormatError(f"{item.name} in {folder.name!r} is a link; links are not taken")
            if item.suffix.lower() in EXECUTABLE:
                raise CheckpointFormatError(
                    f"{item.name} in {folder.name!r} may carry code; only safetensors, JSON, PNG and HTML are taken"
                )
        read = read_folder(folder)
        target = self.path(read.digest)
        if not target.is_dir():
            self.root.mkdir(parents=True, exist_ok=True)
            temporary = Path(mkdtemp(prefix=".incoming-", dir=self.root))
            try:
                for name in KEPT:
                    if (folder / name).is_file():
                        (temporary / name).parent.mkdir(exist_ok=True)
                        shutil.copyfile(folder / name, temporary / name)
                # What was copied is judged again: the source may have changed meanwhile.
                if read_folder(temporary).digest != read.digest:
                    raise CheckpointDigestError(f"{folder.name!r} changed while it was taken")
                temporary.chmod(0o755)
                temporary.rename(target)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        stored = read_folder(target)
        if stored.digest != read.digest:
            raise CheckpointDigestError(f"the stored folder {read.digest[:12]} holds another model")
        return stored, self.digests(read.digest)

    def digests(self, digest: str) -> dict[str, str]:
        """Return the SHA-256 of each file of a stored model."""
        root = self.path(digest)
        return {
            item.relative_to(root).as_posix(): file_digest(item)
            for item in sorted(root.rglob("*"))
            if not item.is_dir()
        }

    def verified(self, digest: str, files: dict[str, str]) -> Path:
        """Return a stored model's folder after checking every file against its recorded SHA-256.

        Raises
        ------
        CheckpointFormatError
            If the folder or a file is gone.
        CheckpointDigestError
            If a file was changed or added.
        """
        folder = self.path(digest)
        if not folder.is_dir():
            raise CheckpointFormatError(f"model {digest[:12]} is registered, but its folder is gone")
        found = self.digests(digest)
        if missing := sorted(set(files) - set(found)):
            raise CheckpointFormatError(f"model {digest[:12]} lacks {', '.join(missing)}")
        wrong = sorted(name for name in found if found[name] != files.get(name))
        if wrong:
            raise CheckpointDigestError(
                f"{', '.join(wrong)} of model {digest[:12]} changed after it was registered"
            )
        return folder
