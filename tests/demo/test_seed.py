"""`visionsuit seed-demo`: the shipped LoRAs as cards, galleries of pictures rendered on the spot, nothing twice."""

from visionsuit.core.actor import GUEST
from visionsuit.demo.seed import PICTURES_PER_GALLERY, lora_folders, seed
from visionsuit.galleries.queries import list_galleries
from visionsuit.generation.base_models import sync_base_models
from visionsuit.images.queries import list_images
from visionsuit.modelcards.queries import list_cards
from visionsuit.runtime import Runtime
from visionsuit.search.plan import ListRequest


def test_a_demonstration_library_once(runtime: Runtime) -> None:
    sync_base_models(runtime)
    shipped = len(lora_folders(runtime.settings.models_dir))
    assert shipped >= 3
    lines: list[str] = []
    seed(runtime, lines.append)

    def seen_by_a_guest() -> tuple[int, set[str], set[str]]:
        with runtime.open_ctx(GUEST, read_only=True) as ctx:
            images = len(list_images(ctx, ListRequest(limit=100)).rows)
            galleries = {gallery.title for gallery in list_galleries(ctx, ListRequest(limit=100)).rows}
            cards = {card.title for card in list_cards(ctx, ListRequest(limit=100)).rows}
        return images, galleries, cards

    pictures, galleries, cards = seen_by_a_guest()
    assert pictures == PICTURES_PER_GALLERY * (shipped + 2)
    assert galleries == {"First light", "Mixes of two"} | cards
    assert len(cards) == shipped

    seed(runtime, lines.append)
    assert lines[-1] == "The demonstration library is complete."
    assert seen_by_a_guest() == (pictures, galleries, cards)
