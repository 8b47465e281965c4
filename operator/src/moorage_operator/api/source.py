"""Where a model's files are: `spec.source`, with the form that each kind of address must have."""

import hashlib
from typing import Annotated, Final

from pydantic import ConfigDict, Field

from moorage_operator.api.quantities import Memory
from moorage_operator.api.schema import IMAGE_REFERENCE, ApiModel, literal, matching, rule, rules

MAX_FILES: Final = 64
FETCHED: Final = ("hf", "https", "s3")
"""The schemes of what a pod fetches before its engine starts; all else is mounted."""

_HF_NAME: Final = "[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
HF_ADDRESS: Final = f"^hf://{_HF_NAME}/{_HF_NAME}@[A-Za-z0-9][A-Za-z0-9._-]{{0,127}}$"
_LABEL: Final = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
HTTPS_ADDRESS: Final = (
    f"^https://({_LABEL}[.])+[a-z]([-a-z0-9]{{0,61}}[a-z0-9])?(:[1-9][0-9]{{0,4}})?"
    "(/[A-Za-z0-9_~+=,@-][A-Za-z0-9._~+=,@-]*)*/([A-Za-z0-9_~+=,@-][A-Za-z0-9._~+=,@-]*[.](gguf|safetensors))?$"
)
S3_ADDRESS: Final = "^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9_][A-Za-z0-9._=+-]*)*/?$"
_PVC: Final = "^pvc://[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?(/[A-Za-z0-9_][A-Za-z0-9._-]*)*$"
_PART: Final = "[A-Za-z0-9_][A-Za-z0-9._+=,@~-]*"
FILE_NAME: Final = (
    f"({_PART}/){{0,3}}({_PART}[.](gguf|jinja|json|safetensors|tiktoken)|merges[.]txt|vocab[.]txt|"
    "(tokenizer|spiece|sentencepiece[.]bpe)[.]model|tokenizer[.]model[.]v3)"
)
_METADATA: Final = "(169[.]254[.]|metadata[.]google[.]internal)"


def _form(scheme: str, pattern: str, message: str, *, dots: bool = False) -> dict[str, str]:
    """The rule for addresses of one scheme."""
    more = " && !self.contains('..')" if dots else ""
    return rule(f"!self.startsWith('{scheme}://') || (self.matches({literal(pattern)}){more})", message)


def _is_fetched(field: str) -> str:
    return " || ".join(f"{field}.startsWith('{scheme}://')" for scheme in FETCHED)


FileName = Annotated[
    str,
    Field(
        description="Path of a file below the address.",
        examples=["qwen2-7b-q4_k_m.gguf"],
        min_length=1,
        max_length=255,
        json_schema_extra=rules(
            rule(
                f"self.matches({literal(f'^({FILE_NAME})$')}) && !self.contains('..')",
                "must be the name of a file that is fetched: .safetensors, .gguf, .json, .jinja or a tokenizer's file, "
                "without '..', for example qwen2-7b-q4_k_m.gguf",
            )
        ),
    ),
]


class Source(ApiModel):
    """Where the model's files are."""

    uri: str = Field(
        description=(
            "Address of the model. oci://IMAGE mounts an OCI image with the files, read-only, cached on the node. "
            "pvc://CLAIM/PATH reads a file or a folder of a PersistentVolumeClaim in the same namespace. "
            "hf://OWNER/NAME@REVISION, https://HOST/FILE.gguf and s3://BUCKET/PREFIX are fetched by each pod before "
            "its engine starts."
        ),
        examples=["oci://localhost/models/smollm2:135m-q4"],
        min_length=7,
        max_length=1024,
        json_schema_extra=rules(
            rule(
                f"self.startsWith('oci://') || self.startsWith('pvc://') || {_is_fetched('self')}",
                "the scheme must be oci:// (an OCI image), pvc:// (a PersistentVolumeClaim of this namespace), hf://, "
                "https:// or s3://, for example oci://registry.example/models/qwen2:7b or pvc://models/qwen2.gguf",
            ),
            _form(
                "oci",
                f"^oci://{IMAGE_REFERENCE}$",
                "an oci:// address must be an image reference, REGISTRY/NAME:TAG or REGISTRY/NAME@sha256:DIGEST, "
                "without spaces, for example oci://registry.example/models/qwen2:7b",
            ),
            rule(
                f"!self.matches('^(oci|https)://{_METADATA}')",
                "the address is that of a cloud's metadata, which no model comes from; name a registry, "
                "for example oci://registry.example/models/qwen2:7b",
            ),
            _form(
                "pvc",
                _PVC,
                "a pvc:// address must be pvc://CLAIM/PATH, the path of letters, digits, '.', '_' and '-', "
                "without '..', '//' or '%', for example pvc://models/qwen2/qwen2-q4.gguf",
                dots=True,
            ),
            _form(
                "hf",
                HF_ADDRESS,
                "an hf:// address must be hf://OWNER/NAME@REVISION, the revision best a commit of 40 digits, "
                "for example hf://Qwen/Qwen2-7B-Instruct@f2826a00ceef68f0f2b946d945ecc0477ce4450c",
                dots=True,
            ),
            _form(
                "https",
                HTTPS_ADDRESS,
                "an https:// address must be that of a .gguf or .safetensors file, or end with / and have files; its "
                "host a name with a dot, not a number; without user, query, '%' or '..', "
                "for example https://files.example/qwen2-q4.gguf",
                dots=True,
            ),
            _form(
                "s3",
                S3_ADDRESS,
                "an s3:// address must be s3://BUCKET/PREFIX, the prefix of letters, digits and . _ = + -, without "
                "'..' or '//', for example s3://models/qwen2-7b",
                dots=True,
            ),
        ),
    )
    secret_name: str | None = Field(
        None,
        description=(
            "Secret of the same namespace whose keys the fetching container gets, and no other: HF_TOKEN for hf://; "
            "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION and AWS_ENDPOINT_URL for s3://. "
            "The operator never reads it."
        ),
        examples=["hf-token"],
        min_length=1,
        max_length=253,
        json_schema_extra=matching(
            "[a-z0-9]([-a-z0-9.]*[a-z0-9])?",
            "must be the name of a Secret in the model's own namespace: lower-case letters, digits, '-' and '.', "
            "for example hf-token",
        ),
    )
    sha256: str | None = Field(
        None,
        description="SHA-256 of the one file of weights that is fetched; another content is refused.",
        examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
        min_length=64,
        max_length=64,
        json_schema_extra=matching(
            "[0-9a-f]{64}",
            "must be 64 hexadecimal digits in lower case, as sha256sum prints them, "
            "for example 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        ),
    )
    size: Memory | None = Field(
        None,
        description=(
            "Room for what is fetched, on the disk of a node that has as much; absent means at most 100Gi, whatever "
            "the node has."
        ),
        examples=["20Gi"],
    )
    files: list[FileName] | None = Field(
        None,
        description="Files to fetch; absent means those that the engine needs. An https:// folder needs it.",
        examples=[["qwen2-7b-q4_k_m.gguf"]],
        max_length=MAX_FILES,
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.secretName) || self.uri.startsWith('hf://') || self.uri.startsWith('s3://')",
                "only hf:// and s3:// use a Secret: remove secretName",
                field_path=".secretName",
                value="self.secretName",
            ),
            rule(
                f"!has(self.sha256) || {_is_fetched('self.uri')}",
                "only of what is fetched (hf://, https://, s3://) a sum is checked: remove sha256, or pin an image by "
                "its digest",
                field_path=".sha256",
            ),
            rule(
                f"!has(self.size) || {_is_fetched('self.uri')}",
                "size is for what is fetched (hf://, https://, s3://): remove size",
                field_path=".size",
            ),
            rule(
                f"!has(self.files) || (({_is_fetched('self.uri')}) && "
                "!(self.uri.startsWith('https://') && !self.uri.endsWith('/')))",
                "files are named below an hf:// or s3:// address, or an https:// address that ends with /: remove "
                "files, or change uri",
                field_path=".files",
            ),
            rule(
                "!self.uri.startsWith('https://') || !self.uri.endsWith('/') || "
                "(has(self.files) && self.files.size() > 0)",
                "a web server has no list of files: name them in files, for example [config.json, model.safetensors]",
                field_path=".files",
            ),
        )
    )

    @property
    def scheme(self) -> str:
        """The kind of address."""
        return self.uri.partition("://")[0]

    @property
    def is_fetched(self) -> bool:
        """Whether a pod fetches the files before its engine starts."""
        return self.scheme in FETCHED

    @property
    def identity(self) -> str:
        """What names the files that are meant: the address, and which of them where that is said."""
        if not self.files:
            return self.uri
        names = hashlib.sha256("\n".join(sorted(self.files)).encode()).hexdigest()[:16]
        return f"{self.uri}#{names}"
