"""List a Hugging Face repository and choose the files of a variant.

huggingface_hub knows the endpoint (HF_ENDPOINT), the token (HF_TOKEN or a login) and what the
hub's errors mean. The bytes come through `avllm.models.pull.http`: hf_hub_download drops what it
has when its process ends, and models are too large to begin again.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import httpx2
import msgspec

from avllm.errors import AvllmError, DownloadError, ModelNotFoundError
from avllm.models.pull.http import CONNECT_SECONDS, RemoteFile
from avllm.models.source import HubSource
from avllm.models.variant import choose_variant

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo


def list_hub_files(source: HubSource) -> tuple[HubSource, tuple[RemoteFile, ...]]:
    """Return `source` with its variant settled, and the files to download for it.

    Raises:
        ModelNotFoundError: no such repository or variant, or several match.
        DownloadError: the hub cannot be reached or refuses.
    """
    info = _model_info(source.repo)
    siblings = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    variant = choose_variant(source.repo, siblings, source.variant)
    headers = _headers()
    files = []
    for path in variant.files:
        lfs = siblings[path].lfs
        remote = RemoteFile(
            url=_url(source.repo, path, info.sha),
            name=PurePosixPath(path).name,
            size=siblings[path].size,
            sha256=lfs.sha256 if lfs else None,
            headers=headers,
        )
        files.append(remote)
    return msgspec.structs.replace(source, variant=variant.name), tuple(files)


def _model_info(repo: str) -> ModelInfo:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError

    try:
        return HfApi(library_name="avllm").model_info(
            repo, files_metadata=True, timeout=CONNECT_SECONDS
        )
    except (OSError, httpx2.HTTPError, HFValidationError) as error:
        raise _translated(repo, error) from error


def _translated(repo: str, error: Exception) -> AvllmError:
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

    if isinstance(error, GatedRepoError):
        return DownloadError(
            f"{repo} asks its users to accept terms first. Accept them on its page, then set "
            "HF_TOKEN to a token of your account."
        )
    # By status: mirrors behind HF_ENDPOINT do not all send the hub's own error codes.
    if isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 404):
        return ModelNotFoundError(
            f"Hugging Face has no repository {repo} that may be read. Check the spelling; for a "
            "private one set HF_TOKEN."
        )
    return DownloadError(f"Hugging Face could not be asked for {repo}: {error}")


def _url(repo: str, path: str, revision: str | None) -> str:
    from huggingface_hub import hf_hub_url

    # The commit, not the branch: every file of a split model then belongs to one upload.
    return hf_hub_url(repo, path, revision=revision)


def _headers() -> dict[str, str]:
    from huggingface_hub import get_token

    token = get_token()
    return {"Authorization": f"Bearer {token}"} if token else {}
