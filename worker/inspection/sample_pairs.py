"""Sixty-four pairs to try a model on: eight queries, each with eight documents."""

from __future__ import annotations

from itertools import product

from worker.engine.values import PairWindow

_QUERIES = (
    "how long do boiled eggs keep in the fridge",
    "symptoms of vitamin B12 deficiency",
    "difference between TCP and UDP",
    "who wrote Pride and Prejudice?",
    "Wie hoch ist die Zugspitze?",
    "¿Cuándo se fundó la ciudad de Buenos Aires?",
    "日本で一番長い川は何ですか",
    "python list sort key lambda",
)
_DOCUMENTS = (
    "Hard-boiled eggs stay good for about a week if they are cooled within two hours and kept in "
    "the fridge. Peeled eggs dry out sooner, so eat those on the same day.",
    "A lack of vitamin B12 often shows as tiredness, pale skin, a sore tongue, pins and needles in "
    "hands and feet, and trouble with memory. A blood test confirms it; people who eat no animal "
    "products, and many older people, need a supplement.",
    "TCP opens a connection, numbers its bytes and sends lost ones again. UDP sends datagrams: "
    "they may be lost, doubled or out of order, and in exchange nothing waits for them.",
    "Pride and Prejudice is a novel by Jane Austen, published in 1813.",
    "Die Zugspitze ist mit 2962 Metern der höchste Berg Deutschlands.",
    "Buenos Aires fue fundada en 1536 por Pedro de Mendoza y, de nuevo, en 1580 por Juan de Garay.",
    "信濃川は長さ367キロメートルで、日本で最も長い川です。",
    " ".join(
        f"Step {step}: `rows.sort(key=lambda row: row[{step}])` sorts the list in place by its "
        f"column {step}; sorted() returns a new list."
        for step in range(1, 9)
    ),
)


def sample_pairs(variant: int = 0) -> PairWindow:
    """Return the pairs; each variant but the first has other documents of about the same length."""
    mark = f" {variant}" if variant else ""
    queries, documents = zip(*product(_QUERIES, _DOCUMENTS), strict=True)
    return PairWindow(list(queries), [document + mark for document in documents])
