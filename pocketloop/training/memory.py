"""How much memory a training step holds at its peak, part by part, counted from shapes alone.

Activations follow Korthikanti et al., "Reducing Activation Recomputation in Large Transformer Models" (MLSys 2023),
section 4: what each operation keeps for its backward pass, summed over a block. Their 34 sbh + 5 as²b is of a block
that trains all of its weights; under a frozen base a linear layer keeps its input only where an adapter's A reads it,
norms keep a float32 copy, and gated MLPs keep four tensors of the intermediate width.
`tests/training/test_memory.py` compares the sums with measured peaks.
"""

from dataclasses import asdict, dataclass

from pocketloop.contracts.training import LoraConfig
from pocketloop.training.shape import ATTENTION, MLP, BaseShape, start_rank, targeted, trainable_parameters

_FLOAT32 = 4
_NF4 = 0.5 + (1 + 4 / 256) / 64
"""Bytes of a weight in NF4 with double quantization: an 8-bit constant for 64 weights, a float32 for 256 of those
(Dettmers et al., "QLoRA", 2023)."""
_ADAM = 8
"""Bytes of AdamW's two float32 moments."""
_SENSITIVITY = 12
"""Bytes that AdaLoRA keeps for each trained number: its importance, and two running means of it."""


@dataclass(frozen=True)
class Precision:
    """In what the base lies (`quantized`: its linear layers in NF4) and what products are computed in."""

    half: bool
    quantized: bool = False

    @property
    def bytes(self) -> int:
        """Of a number that an operation computes with."""
        return 2 if self.half else _FLOAT32


@dataclass(frozen=True)
class Batch:
    """What one process's model holds at once: `rows` sequences padded to `length` tokens, `answers` tokens with a loss.

    `fused_attention` keeps no matrix of scores; `checkpointing` keeps a block's input alone and computes the rest
    again in the backward pass; `logits` counts arrays of [answers, vocabulary] (float32) that are held together, of at
    most `logits_chunk` answers at a time.
    """

    rows: int
    length: int
    answers: int
    fused_attention: bool
    checkpointing: bool
    logits: int = 3
    logits_chunk: int | None = None

    @property
    def tokens(self) -> int:
        """Padding included."""
        return self.rows * self.length


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak of a stage, by part. `models` are references, teachers, reward and value models."""

    weights: float
    adapter: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    workspace: float
    models: float = 0.0
    cache: float = 0.0

    @property
    def total(self) -> float:
        """All parts together."""
        return sum(self.parts.values())

    @property
    def parts(self) -> dict[str, float]:
        """Each part by name."""
        return asdict(self)


def weight_bytes(shape: BaseShape, precision: Precision) -> float:
    """The base as it lies in memory while it trains."""
    if not precision.quantized:
        return shape.parameters * precision.bytes
    return shape.linear_parameters * _NF4 + (shape.parameters - shape.linear_parameters) * precision.bytes


def adapter_bytes(shape: BaseShape, lora: LoraConfig) -> tuple[float, float, float]:
    """The adapter in float32, its gradients, and the optimizer's states."""
    trained = trainable_parameters(shape, lora)
    states = _ADAM + (_SENSITIVITY if lora.method == "adalora" else 0)
    return _FLOAT32 * trained, _FLOAT32 * trained, states * trained


def token_bytes(shape: BaseShape, lora: LoraConfig, precision: Precision, batch: Batch) -> float:
    """What one block keeps of one token for the backward pass, attention's scores included."""
    size, floats = precision.bytes, _FLOAT32
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    norms = shape.norms * shape.hidden * floats
    if shape.normalizes_queries:
        norms += (queries + keys) * floats
    attention = 3 * queries * size  # grouped keys and values are repeated for every head
    if batch.fused_attention:
        attention += queries * size + shape.heads * floats  # its output, and a log-sum a head
    else:
        attention += shape.heads * batch.length * (floats + (size if precision.half else 0))
    gated = 3 * shape.intermediate * size
    return norms + attention + gated + _adapter_inputs(shape, lora, size, batch.fused_attention)


def activation_bytes(shape: BaseShape, lora: LoraConfig, precision: Precision, batch: Batch) -> float:
    """What all blocks keep; with checkpointing each its input, and one block everything."""
    block = batch.tokens * token_bytes(shape, lora, precision, batch)
    final = batch.tokens * shape.hidden * _FLOAT32
    if not batch.checkpointing:
        return shape.layers * block + final
    return shape.layers * batch.tokens * shape.hidden * precision.bytes + block + final


def workspace_bytes(shape: BaseShape, lora: LoraConfig, precision: Precision, batch: Batch) -> float:
    """What a block's backward pass needs while everything else is still held.

    The gradients of the gated MLP (three of the intermediate width), or those of attention's scores (three, float32);
    a weight in 4 bits is unpacked, and DoRA multiplies each adapter out, one layer at a time.
    """
    widest = 3 * batch.tokens * shape.intermediate * precision.bytes
    scores = 0 if batch.fused_attention else 3 * batch.rows * shape.heads * batch.length**2 * _FLOAT32
    largest = max(linear.inputs * linear.outputs for linear in targeted(shape, lora))
    unpacked = largest * precision.bytes if precision.quantized else 0
    multiplied = 3 * largest * _FLOAT32 if lora.method == "dora" else 0
    return max(widest, scores) + unpacked + multiplied


def logits_bytes(shape: BaseShape, batch: Batch) -> float:
    """Logits over the vocabulary and what the loss makes of them."""
    rows = batch.answers if batch.logits_chunk is None else min(batch.answers, batch.logits_chunk)
    return batch.logits * rows * shape.vocabulary * _FLOAT32


def cache_bytes(shape: BaseShape, precision: Precision, rows: int, length: int) -> float:
    """Keys and values of `rows` sequences that are being written, `length` tokens each at the end."""
    local = min(length, shape.window or length)
    tokens = shape.local_layers * local + (shape.layers - shape.local_layers) * length
    return 2 * rows * tokens * shape.kv_heads * shape.head_dim * precision.bytes


def step_memory(shape: BaseShape, lora: LoraConfig, precision: Precision, batch: Batch) -> Memory:
    """One training step of the adapter, at its peak.

    The loss is computed while every activation is held, and its arrays are gone when the last block's backward pass
    begins: of logits and workspace the larger one counts.
    """
    adapter, gradients, optimizer = adapter_bytes(shape, lora)
    logits = logits_bytes(shape, batch)
    workspace = workspace_bytes(shape, lora, precision, batch)
    return Memory(
        weights=weight_bytes(shape, precision),
        adapter=adapter,
        gradients=gradients,
        optimizer=optimizer,
        activations=activation_bytes(shape, lora, precision, batch),
        logits=logits,
        workspace=max(0.0, workspace - logits),
    )


def _adapter_inputs(shape: BaseShape, lora: LoraConfig, size: int, fused: bool) -> float:
    """What the adapters of one block keep of a token: A's inputs (shared where several read the same), and A's outputs.

    Dropout gives every adapter an input of its own, and a mask (held in the inputs' precision on a processor). DoRA
    keeps the base's output and the adapter's, too.
    """
    per_block = [linear for linear in targeted(shape, lora) if linear.leaf in (*ATTENTION, *MLP)]
    blocks = max(shape.layers, 1)
    outputs = len(per_block) * start_rank(lora) * size
    if lora.method == "dora":
        outputs += 2 * size * sum(linear.outputs for linear in per_block)
    if lora.dropout > 0:
        return (outputs + 2 * size * sum(linear.inputs for linear in per_block)) / blocks
    readers = {"q_proj": "hidden", "k_proj": "hidden", "v_proj": "hidden", "gate_proj": "mlp", "up_proj": "mlp"}
    read: dict[tuple[str, str], int] = {}
    for linear in per_block:
        if linear.leaf == "o_proj" and fused:
            continue  # fused attention keeps its output anyway
        read[linear.name.split(".")[2], readers.get(linear.leaf, linear.leaf)] = linear.inputs
    return (outputs + size * sum(read.values())) / blocks
