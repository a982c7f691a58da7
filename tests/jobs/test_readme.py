"""What the README says about the command line is what the program says."""
import pathlib

from pipeline import succeed

README = pathlib.Path(__file__).parents[2] / "README.md"


def test_the_key_table_is_that_of_the_program():
    table = README.read_text("utf-8").split("<!-- keys -->\n")[1].split("<!-- /keys -->")[0]
    assert table == succeed("config").out
