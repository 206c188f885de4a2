"""Folders of Hugging Face's transformers, read and written in plain Python: what the tests of `atoll convert` compare with."""

import array
import json
import random
import struct

BASE = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "vocab_size": 40, "hidden_size": 16,
        "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 1000.0, "tie_word_embeddings": False,
        "bos_token_id": 1, "eos_token_id": 2}
WIDTHS = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "I8": 1}


def shapes(config):
    width, heads = config["hidden_size"], config["num_attention_heads"]
    head = config.get("head_dim") or width // heads
    keys = config.get("num_key_value_heads", heads) * head
    result = {"model.embed_tokens.weight": (config["vocab_size"], width)}
    for i in range(config["num_hidden_layers"]):
        block = {"input_layernorm": (width,), "self_attn.q_proj": (heads * head, width), "self_attn.k_proj": (keys, width),
                 "self_attn.v_proj": (keys, width), "self_attn.o_proj": (width, heads * head),
                 "post_attention_layernorm": (width,), "mlp.gate_proj": (config["intermediate_size"], width),
                 "mlp.up_proj": (config["intermediate_size"], width), "mlp.down_proj": (width, config["intermediate_size"])}
        result |= {f"model.layers.{i}.{name}.weight": shape for name, shape in block.items()}
    result["model.norm.weight"] = (width,)
    if not config.get("tie_word_embeddings"):
        result["lm_head.weight"] = (config["vocab_size"], width)
    return result


def count(shape):
    result = 1
    for extent in shape:
        result *= extent
    return result


def encode(numbers, dtype):
    if dtype == "F32":
        return array.array("f", numbers).tobytes()
    if dtype == "F16":
        return struct.pack(f"<{len(numbers)}e", *numbers)
    if dtype == "BF16":  # Of numbers that bf16 knows.
        return b"".join(struct.pack("<f", number)[2:] for number in numbers)
    return bytes(WIDTHS[dtype] * len(numbers))


def random_tensors(config, dtype="F32", seed=1):
    """By name: dtype, shape, bytes. All numbers are multiples of 1/128 below 1, which every format knows."""
    generator = random.Random(seed)
    return {name: (dtype, shape, encode([generator.randrange(-127, 128) / 128 for _ in range(count(shape))], dtype))
            for name, shape in shapes(config).items()}


def write_safetensors(path, tensors):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in tensors.values()))


def read_safetensors(path):
    data = path.read_bytes()
    begin = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:begin])
    header.pop("__metadata__", None)
    return {name: (entry["dtype"], tuple(entry["shape"]), data[begin + entry["data_offsets"][0]:begin + entry["data_offsets"][1]])
            for name, entry in header.items()}


def write_model(folder, config, tensors, shards=1):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    if shards == 1:
        return write_safetensors(folder / "model.safetensors", tensors)
    weight_map, names = {}, list(tensors)
    for shard in range(shards):
        part = names[shard::shards]
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        write_safetensors(folder / file, {name: tensors[name] for name in part})
        weight_map |= {name: file for name in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def read_model(folder):
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        found = read_safetensors(path)
        assert not tensors.keys() & found.keys()
        tensors |= found
    return json.loads((folder / "config.json").read_text()), tensors
