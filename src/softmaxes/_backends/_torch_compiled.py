"""PyTorch's compiler, told as this file is imported what not to look into."""

from softmaxes._backends._torch import alone, applied, computed, in_graph
from softmaxes._backends._torch_products import applied_to_product

in_graph(alone)
in_graph(applied)
in_graph(applied_to_product)
in_graph(computed)
