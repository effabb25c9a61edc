"""One network as two files: model.safetensors with config.json for this engine, model.onnx for onnxruntime. A wav2vec 2.0 encoder of the size of mgf-tiny
on raw waveforms, with random weights: time does not depend on them, and the outputs can be compared all the same.

    pip install torch transformers safetensors onnx onnxscript && python export.py FOLDER
"""
import json
import pathlib
import sys

import torch
import transformers as tf
from safetensors.torch import save_file

folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
torch.manual_seed(0)
config = tf.Wav2Vec2Config(
    hidden_size=192, num_hidden_layers=4, num_attention_heads=3, intermediate_size=768, conv_dim=[128] * 7, feat_extract_norm="layer", do_stable_layer_norm=True,
    conv_bias=True, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=8, attn_implementation="eager",
)
network = tf.Wav2Vec2Model(config).eval()
(folder / "config.json").write_text(json.dumps(config.to_diff_dict() | {"model_type": config.model_type}))
save_file({k: v.contiguous() for k, v in network.state_dict().items()}, folder / "model.safetensors", {"format": "pt"})


class LastState(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.network = network

    def forward(self, wave):
        return self.network(wave).last_hidden_state


# Weight norm is a product of constants by the time a model runs.
torch.nn.utils.parametrize.remove_parametrizations(network.encoder.pos_conv_embed.conv, "weight")
batch = torch.export.Dim("batch", min=1, max=64)
torch.onnx.export(LastState(), (torch.randn(2, 160000),), folder / "model.onnx", input_names=["wave"], output_names=["states"], dynamic_shapes={"wave": {0: batch}}, dynamo=True, external_data=False)
print(sum(p.numel() for p in network.parameters()), "parameters")
