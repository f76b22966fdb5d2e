"""The tokens of a recipe or of a job's options that a language model answers with."""

from __future__ import annotations

import re

from rankmill.models.recipe import Recipe
from worker.engine.folder.model_folder import ModelFolder
from worker.engine.folder.refusal import UnusableFolder, UnusableOption

_ID = re.compile(r"id:(\d{1,9})")


def stated_answers(source: ModelFolder) -> list[int] | None:
    """Return the token that means relevant and, if one is used, the one that means irrelevant.

    None where the recipe names none.

    Raises:
        UnusableOption: an option is not one token of the tokenizer.
        UnusableFolder: the recipe is that of another vocabulary.
    """
    recipe = source.recipe
    if recipe.yes is None:
        return None
    answers = [_answer(source, recipe, "yes", recipe.yes, recipe.yes_id)]
    if recipe.no is not None:
        answers.append(_answer(source, recipe, "no", recipe.no, recipe.no_id))
    if len(set(answers)) < len(answers):
        raise UnusableOption(
            f"--yes-token {recipe.yes} and --no-token {recipe.no} are one token of {source.path}"
        )
    return answers


def check_recipe(source: ModelFolder) -> None:
    """Refuse a tokenizer that is not the one that the recipe was written for.

    Raises:
        UnusableFolder: naming the recipe and the token.
    """
    recipe = source.recipe
    if not recipe.tokens:
        return  # a large vocabulary takes time to list
    vocabulary = source.tokenizer.get_vocab()
    missing = [text for text in recipe.tokens if text not in vocabulary]
    if missing:
        raise UnusableFolder(
            f"{source.path}: recipe {recipe.name} needs the token {missing[0]!r}, which this "
            "tokenizer does not have: the model is another one; give its prompt with "
            "--chat-template or --input-template"
        )


def _answer(source: ModelFolder, recipe: Recipe, side: str, stated: str, known: int | None) -> int:
    token = _token(source, f"--{side}-token", stated)
    if known is not None and token != known:
        raise UnusableFolder(
            f"{source.path}: recipe {recipe.name} needs the token {stated!r} to have id {known}, "
            f"here it has {token}: the model is another one; give its answers with --yes-token and "
            "--no-token"
        )
    return token


def _token(source: ModelFolder, flag: str, stated: str) -> int:
    """Return the id of a token by its text or as `id:N`."""
    tokenizer = source.tokenizer
    vocabulary = tokenizer.get_vocab()
    as_id = _ID.fullmatch(stated)
    if as_id is not None:
        if int(as_id[1]) >= source.config.get_text_config().vocab_size:
            raise UnusableOption(
                f"{flag} {stated}: {source.path} has {source.config.get_text_config().vocab_size} "
                "tokens"
            )
        return int(as_id[1])
    encoded: list[int] = tokenizer(stated, add_special_tokens=False, verbose=False)["input_ids"]
    in_text = encoded[0] if len(encoded) == 1 else None
    if in_text == tokenizer.unk_token_id and stated != tokenizer.unk_token:
        in_text = None
    in_vocabulary = vocabulary.get(stated)
    found = [each for each in dict.fromkeys((in_vocabulary, in_text)) if each is not None]
    if not found:
        tokens = ", ".join(map(repr, tokenizer.convert_ids_to_tokens(encoded)[:8]))
        raise UnusableOption(
            f"{flag} {stated}: not one token of {source.path}, but {len(encoded)} ({tokens}); give "
            "a text that is one token, or a token's number as id:N"
        )
    if len(found) > 1:
        ids = " or ".join(f"id:{each}" for each in found)
        raise UnusableOption(f"{flag} {stated}: two tokens of {source.path} read so; give {ids}")
    return found[0]
