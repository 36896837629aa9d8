"""Transitions of the shape on which a public RWML attempt failed: shopping, and half of it is search result pages.

More than half of the transitions lead to result pages with products, ids and prices that were never seen before; the
rest are product pages, option clicks, the way back, and buying. The pages are written like WebShop's in its text mode,
their parts separated by `[SEP]`; nothing of WebShop itself is used.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from rwml_gym.transitions import Transition, TransitionDataset, Turn

GOODS = {
    "shirt": ("slim fit", "long sleeve", "machine washable", "button down", "cotton", "for men"),
    "sofa": ("mid century", "easy to assemble", "solid wood", "living room", "with storage", "the whole family"),
    "headphones": ("noise cancelling", "with microphone", "wireless bluetooth", "case cover", "for the gym", "stereo"),
    "shampoo": ("sulfate free", "for dry hair", "tea tree oil", "cruelty free", "natural ingredients", "a gentle wash"),
    "cookies": ("gluten free", "individually wrapped", "chocolate chip", "low sugar", "a gift basket", "non gmo"),
    "curtains": ("blackout", "for the bedroom", "rod pocket", "thermal insulated", "set with tiebacks", "polyester"),
}
OPTIONS = {"size": ("small", "medium", "large", "x-large"), "color": ("black", "navy blue", "white", "wine red")}
SYLLABLES = ("va", "lo", "ri", "zen", "mar", "tu", "kel", "bo", "nix", "sha", "dra", "wi", "pom", "fe", "yu", "cha")
SEP = " [SEP] "


@dataclass(frozen=True)
class Product:
    code: str
    title: str
    price: str


class Session:
    """One customer's visit."""

    def __init__(self, number: int):
        self.rng = random.Random(number)
        self.goods = self.rng.choice(list(GOODS))
        self.wish = self.rng.choice(GOODS[self.goods])
        limit = self.rng.randrange(20, 140, 10)
        self.task = f"i am looking for {self.goods}, {self.wish}, and price lower than {limit}.00 dollars"
        self.head = f"Instruction:{SEP}{self.task}"
        self.start = f"WebShop{SEP}{self.head}{SEP}Search"
        self.page, self.results, self.product = self.start, "", Product("", "", "")
        self.products: list[Product] = []

    def brand(self) -> str:
        return "".join(self.rng.choice(SYLLABLES) for _ in range(3)).title()

    def offer(self) -> Product:
        code = "B0" + "".join(self.rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ0123456789") for _ in range(8))
        words = [
            self.brand(),
            *self.rng.sample(GOODS[self.goods], 3),
            self.goods,
            f"({self.rng.randrange(1, 13)} pack)",
        ]
        return Product(code, " ".join(words), f"${self.rng.randrange(5, 150)}.{self.rng.randrange(100):02}")

    def search(self, number: int) -> str:
        self.products = [self.offer() for _ in range(5)]
        total = self.rng.randrange(12, 50)
        items = [part for p in self.products for part in (p.code, p.title, p.price)]
        back = ["Back to Search", f"Page {number} (Total results: {total})", "Next >"]
        self.results = SEP.join([self.head, *back, *items])
        return self.results

    def item(self) -> str:
        options = [part for name, values in OPTIONS.items() for part in (name, *values)]
        rest = [
            self.product.title,
            f"Price: {self.product.price}",
            "Rating: N.A.",
            "Description",
            "Features",
            "Buy Now",
        ]
        return SEP.join([self.head, "Back to Search", "< Prev", *options, *rest])

    def choose(self) -> str:
        if self.page == self.start:
            return "search"
        if self.page == self.results:
            return self.rng.choices(["search", "next", "open"], [13, 2, 6])[0]
        return self.rng.choices(["option", "prev", "back", "buy"], [8, 2, 3, 2])[0]

    def act(self) -> tuple[str, str, bool]:
        """An action, the page it leads to, and whether it is the end."""
        match self.choose():
            case "search":
                words = " ".join(self.rng.sample([self.goods, self.wish, *self.rng.sample(GOODS[self.goods], 2)], 2))
                return f"search[{words}]", self.search(1), False
            case "next":
                return "click[Next >]", self.search(2), False
            case "open":
                self.product = self.rng.choice(self.products)
                return f"click[{self.product.code}]", self.item(), False
            case "option":
                value = self.rng.choice(OPTIONS[self.rng.choice(list(OPTIONS))])
                return f"click[{value}]", f"You have clicked {value}.{SEP}{self.item()}", False
            case "prev":
                return "click[< Prev]", self.results, False
            case "back":
                return "click[Back to Search]", self.start, False
        thanks = f"Thank you for shopping with us!{SEP}Your code:{SEP}None{SEP}Your score (min 0.0, max 1.0):{SEP}"
        return "click[Buy Now]", thanks + self.rng.choice(("0.0", "0.5", "0.66", "1.0")), True


def webshop(sessions: int = 60, steps: int = 15, history: int = 4) -> TransitionDataset:
    """Recorded visits."""
    transitions = []
    for number in range(sessions):
        session = Session(number)
        turns = [Turn("", session.start)]
        for step in range(steps):
            action, page, over = session.act()
            transitions.append(
                Transition(
                    tuple(turns[-history:]), action, page, session.task, "WebShop", f"session-{number}", number, step
                )
            )
            turns.append(Turn(action, page))
            session.page = page
            if over:
                break
    return TransitionDataset(transitions)


def is_results_page(transition: Transition) -> bool:
    """Whether new products were listed."""
    return transition.action.startswith(("search[", "click[Next"))
