"""The table of API styles: what differs between servers, so that nothing else asks for a style's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from batchgen.model import Body, Post
from batchgen.protocol import Model, nebula, openai
from batchgen.protocol.answers import links

Encode = Callable[[str, Mapping[str, Any], Mapping[str, bytes]], Post]


@dataclass(frozen=True)
class Style:
    """One way to speak to an image server.

    `url_env` and `key_env` are the environment variables that its users have; `edit_path` is where pictures are edited
    if it is not where they are generated, by the latter. `links` finds where an answer says that its pictures lie, for
    styles that do so. `keyless`: a server of one's own may ask for no key.
    `stands_in`: it is no real server and never sees the real key.
    """

    name: str
    default_url: str
    url_env: str
    key_env: str
    encode: Encode
    generate_path: str
    models_path: str
    decode_models: Callable[[Body], list[Model]]
    edit_path: Callable[[str], str] = lambda path: path
    credits_path: str | None = None
    decode_credits: Callable[[Body], float] | None = None
    links: Callable[[Body], tuple[str, ...]] = lambda body: ()
    keyless: bool = False
    stands_in: bool = False

    def encoder(self, path: str | None) -> Encode:
        """`encode` for a server that has its generation somewhere else; None is the style's own path."""
        if path is None:
            return self.encode
        places = {self.generate_path: path, self.edit_path(self.generate_path): self.edit_path(path)}

        def moved(model: str, request: Mapping[str, Any], files: Mapping[str, bytes]) -> Post:
            post = self.encode(model, request, files)
            return Post(places[post.path], post.content_type, post.body)

        return moved


NEBULA = Style(
    name="nebula",
    default_url=nebula.DEFAULT_URL,
    url_env=nebula.URL_ENV,
    key_env=nebula.KEY_ENV,
    encode=nebula.encode_post,
    generate_path=nebula.GENERATE_PATH,
    models_path=nebula.MODELS_PATH,
    decode_models=nebula.decode_models,
    credits_path=nebula.CREDITS_PATH,
    decode_credits=nebula.decode_credits,
)
OPENAI = Style(
    name="openai",
    default_url=openai.DEFAULT_URL,
    url_env=openai.URL_ENV,
    key_env=openai.KEY_ENV,
    encode=openai.encode_post,
    generate_path=openai.GENERATE_PATH,
    models_path=openai.MODELS_PATH,
    decode_models=openai.decode_models,
    edit_path=openai.edit_path,
    links=links,
    keyless=True,
)
SANDBOX = replace(NEBULA, name="sandbox", default_url="", url_env="BATCHGEN_API_URL", stands_in=True)

STYLES = {style.name: style for style in (NEBULA, SANDBOX, OPENAI)}
