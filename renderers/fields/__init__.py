"""Fields: functions of a point in space, learned. Encodings, and what stands on them: radiance and signed distance.

Encodings turn points into features and have `num_features`; `heads` are the small networks behind them; `nerf` and
`sdf` join both. `normals` are derivatives of any field. Modules are `flax.nnx`; `nnx.split` makes a step function pure.
"""
