"""Where teachers come from: all of a folder that is read arrives, and nothing else."""

from distill_core.config import TeacherSource
from distill_core.teacher import fingerprint, model_files
from tasks.sources import fetch, locate
from tests.core.family_models import save_small


def test_what_sentence_transformers_saved_beside_a_model_is_fetched_with_it(tiny_bert, tmp_path):
    from transformers import BertTokenizerFast

    tokenizer = BertTokenizerFast.from_pretrained(tiny_bert)
    origin, copy = tmp_path / "origin", tmp_path / "copy"
    save_small("bert", "Model", tokenizer, origin)
    for name in ("1_Pooling/config.json", "2_Dense/config.json", "modules.json", "README.md"):
        (origin / name).parent.mkdir(exist_ok=True)
        (origin / name).write_text("[]")
    copy.mkdir()
    fetch(TeacherSource(source=str(origin)), copy)
    fetched = {str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()}
    assert fetched == {str(path.relative_to(origin)) for path in model_files(origin)}
    assert fetched >= {"1_Pooling/config.json", "modules.json"}
    assert not fetched & {"2_Dense/config.json", "README.md"}
    assert fingerprint(copy) == fingerprint(origin)


def test_a_folder_is_looked_at_where_it_lies(tiny_bert):
    assert locate(TeacherSource(source=str(tiny_bert))) == tiny_bert
