"""The only room that knows how transformers runs attention.

A call of ``with OutRo()(model):`` passes through the files below. Read them in this order; those of this room stand
without a room. `tests/decoder/test_reading_order.py` holds the list against what is run. Errors are worded in
`refusals`, masks that others prepared are read in `masks`, and the layers of a prompt are run again in `replay`: a
plain call passes none of these. All questions that a method can answer stand in `intervention`, for those who write
another one; OutRo overrides what it needs of them.

What the method is:

1. `methods/outro.py`: the method in numbered steps, and each of them on the tensors of a layer.
2. `methods/sink_method.py`: mark sinks where the residual stream enters a layer.
3. `methods/criterion.py`: what a criterion is, and massive activation, the default.
4. `methods/base.py`: what every method is: settings, and a block around a model.
5. `context.py`: what a method is told in a pass.
6. `methods/block_records.py`: the record a method writes, and what is checked at the end of the block.

How the model is found and the method put on it:

7. `anatomy.py`: find the text decoder, its layers and their attention.
8. `attention_code.py`: find where a module's code asks transformers for its attention function.
9. `attachment.py`: hooks on the text model and its layers, on from the start of the block to its end.
10. `interface.py`: stand in front of the attention function, and ask the methods around it.
11. `patching.py`: replacements that several attachments share.

What happens in a pass:

12. `arguments.py`: find mask and cache among the arguments of a call.
13. `passes.py`: tell the prefill from the passes that continue it.
14. `branches.py`: tell a model's own pass from its twins (`twins`), which contrastive methods run.
15. `caches.py`: keep a method's tensors with the cache, in the order of its sequences.
16. `hooks.py`: take the layers' hooks aside where one token is added.
17. `generation.py`: refuse ways to generate that would be silently wrong.
18. `threads.py`: keep the passes of several threads apart.
19. `checkpointing.py`: refuse layers that the backward pass would run again.
20. `methods/finiteness.py`: notice numbers that are not finite.

The formulas:

21. `maths/outro_settings.py`: OutRo's settings.
22. `maths/bounds.py`: their ranges.
23. `maths/layers.py`: which layers detect and relax by default.
24. `maths/prompts.py`: what the layers of one prefill share.
25. `maths/sinks.py`: massive activations.
26. `maths/magnitude.py`: the largest activation of a token.
27. `maths/relaxation.py`: attention of sink rows over the whole prompt.
28. `maths/rotation.py`: the sink's value, and the rotation toward it.
29. `maths/host.py`: what the host may look at, and work in blocks.
30. `maths/choice.py`: whether kernels or PyTorch's operators do the work.
"""
