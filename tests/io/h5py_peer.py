"""The other side of the HDF5 tests: h5py writes tokens.h5 as prepare does, and checks our files."""
import sys

import h5py
import numpy as np


def fixed(texts):
    """Texts of fixed length."""
    encoded = np.char.encode(np.asarray(texts, str), "utf-8")
    return encoded.astype(h5py.string_dtype("utf-8", max(1, encoded.itemsize)))


def write_tokens(path):
    """Two items, one of them with choices; three options."""
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        file.attrs["format"] = fixed("mrp.tokens")
        file.attrs["version"] = np.int64(1)
        file.attrs["fingerprint"] = fixed("ab12")
        file.attrs["tokenizer_sha256"] = fixed("cd34")
        file.attrs["vocab_size"] = np.int64(50)
        group = file.create_group("forget")
        group.attrs["source"] = fixed("forget.jsonl")
        group.attrs["dropped_too_long"] = np.int64(7)
        write_sequences(group.create_group("items"),
                        [[1, 5, 6, 7], [1, 49]], [[0, 1, 1, 0], [1, 0]])
        group["ids"] = fixed(["forget:1", "ünï"])
        group["zlib_bytes"] = np.array([12, 9], np.int64)
        group["answer_index"] = np.array([2, -1], np.int32)
        group["letter_position"] = np.array([1, -1], np.int64)
        group["letters/token_ids"] = np.array([6, 8, 9], np.int32)
        group["letters/offsets"] = np.array([0, 3, 3], np.int64)
        options = group.create_group("options")
        write_sequences(options, [[1, 2], [3, 4, 5], [6]], [[1, 0], [0, 1, 0], [0]])
        options["item"] = np.array([0, 0, 1], np.int64)
        options["choice"] = np.array([0, 2, -1], np.int32)
        options["form"] = np.array([0, 1, 2], np.uint8)
        # As someone else might store it: chunked and compressed.
        retain = file.create_group("retain")
        file.copy(group["letters"], retain, "letters")
        for name in ("source", "dropped_too_long"):
            retain.attrs[name] = group.attrs[name]
        for name in ("ids", "zlib_bytes", "answer_index", "letter_position", "options", "items"):
            file.copy(group[name], retain, name)
        tokens = retain["items/token_ids"][:]
        del retain["items/token_ids"]
        retain["items"].create_dataset("token_ids", data=tokens, chunks=(4,), compression="gzip")


def write_sequences(group, tokens, masks):
    """Sequences back to back."""
    group["token_ids"] = np.concatenate(tokens).astype(np.int32)
    group["offsets"] = np.cumsum([0, *map(len, tokens)])
    group["target_mask"] = np.concatenate(masks).astype(np.uint8)


def check_states(path):
    """hidden_states[i, j] = (1 + i) 2^j of every site, whatever the type; positions (i, i + 1)."""
    with h5py.File(path) as file:
        assert file.attrs["format"] == b"mrp.states" and file.attrs["version"] == 1
        assert file.attrs["fingerprint"] == "fünf".encode()
        assert set(file) == {"forget", "retain"}
        for group in file.values():
            sites = {"layers.0.down_proj.input": 13, "layers.0.o_proj.input": 8}
            assert set(group) == {"positions", *sites}
            rows = np.arange(len(group["positions"]))
            assert (group["positions"][:] == np.stack([rows, rows + 1], 1)).all()
            for site, width in sites.items():
                states = group[site]["hidden_states"]
                assert states.shape == (len(rows), width) and states.dtype == np.float32, states
                assert (states[:] == (1 + rows[:, None]) * 2 ** np.arange(width)).all()


def check_subspaces(path):
    """A = B = the first two unit vectors of four."""
    with h5py.File(path) as file:
        assert file.attrs["format"] == b"mrp.subspaces" and file.attrs["rule"] == b'{"rule":"gevp"}'
        group = file["layers.0.stream"]
        assert (group["A"][:] == np.eye(4, 2)).all() and (group["B"][:] == np.eye(4, 2)).all()
        assert list(group["eigenvalues"]) == [3.0, 2.0, 0.5] and group.attrs["null_edge"] == 1.25


def check_deltas(path):
    """ΔW[i, j] = (1 + i)/1000 − j/2²⁰ in fp32, the vector likewise with i = 0."""
    with h5py.File(path) as file:
        assert file.attrs["format"] == b"mrp.deltas" and file.attrs["version"] == 1
        assert file.attrs["summary"] == b'{"train":"subspace"}'
        shapes = {"model.layers.0.mlp.down_proj.weight": (9, 13),
                  "model.layers.0.mlp.down_proj.bias": (21,)}
        assert set(file) == set(shapes)
        for name, shape in shapes.items():
            delta = file[name]
            assert delta.shape == shape and delta.dtype == np.float32, delta
            rows, columns = np.indices((1, *shape)[-2:]).astype(np.float32)
            expected = (1 + rows) * np.float32(1e-3) - columns * np.float32(2.0 ** -20)
            assert (delta[:].reshape(expected.shape) == expected).all()


if __name__ == "__main__":
    {"write-tokens": write_tokens, "check-states": check_states,
     "check-subspaces": check_subspaces, "check-deltas": check_deltas}[sys.argv[1]](sys.argv[2])
