from tests.campaigns.mutants import MUTANTS, killers_of, path_of
from tests.helpers.process import ROOT


def test_every_mutant_is_of_the_code_that_there_is():
    for file, mutants in MUTANTS.items():
        text = (ROOT / path_of(file)).read_text()
        for mutant in mutants:
            assert text.count(mutant.old) == 1, (file, mutant.old)
            assert mutant.old != mutant.new
            compile(text.replace(mutant.old, mutant.new), file, "exec")
            for killer in killers_of(file, mutant):
                path, *names = killer.split("::")
                assert (ROOT / path).exists(), killer
                assert all(f" {name}(" in (ROOT / path).read_text().replace(":", "(") for name in names), killer
