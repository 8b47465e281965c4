"""The rules of a spec that depend on its framework, in CEL: made from what `api.engines` lists for each."""

from moorage_operator.api.engines import ENGINES, EngineApi, Framework
from moorage_operator.api.schema import literal, literals, rule


def engine_rules() -> list[dict[str, str]]:
    """The rules of a spec that hold for one framework only."""
    found = []
    for framework, engine in ENGINES.items():
        found += [
            _only_its_block(framework),
            _quantization(framework, engine),
            _options(framework, engine),
            _variables(framework, engine),
        ]
    return found


def _only_its_block(framework: Framework) -> dict[str, str]:
    return rule(
        f"!has(self.{framework}) || self.framework == '{framework}'",
        f"{framework} is only for framework {framework}: remove it, or set framework to {framework}",
        field_path=f".{framework}",
        value="'framework ' + self.framework",
    )


def _quantization(framework: Framework, engine: EngineApi) -> dict[str, str]:
    return rule(
        f"self.framework != '{framework}' || !has(self.quantization) || "
        f"self.quantization in {literals(engine.quantizations)}",
        f"with framework {framework} it must be {engine.quantizations_in_words}, or absent",
        field_path=".quantization",
        value="self.quantization",
    )


def _options(framework: Framework, engine: EngineApi) -> dict[str, str]:
    allowed = f"arg.matches({literal(option_pattern(engine))})" if engine.options else "false"
    options = ", ".join(engine.options_in_words())
    example = "--enforce-eager" if framework is Framework.VLLM else "--flash-attn=on"
    message = (
        f"with framework {framework} an option must be one of {options}, in full and as one text, for example {example}"
        if engine.options
        else f"framework {framework} takes no options: remove extraArgs"
    )
    return rule(
        f"self.framework != '{framework}' || !has(self.extraArgs) || self.extraArgs.all(arg, {allowed})",
        message,
        field_path=".extraArgs",
        value=f"self.extraArgs.filter(arg, !{allowed})[0]",
    )


def option_pattern(engine: EngineApi) -> str:
    """The pattern of what may be in extraArgs."""
    return "^--(" + "|".join(n + (f"=({v})" if v else "") for n, v in sorted(engine.options.items())) + ")$"


def _variables(framework: Framework, engine: EngineApi) -> dict[str, str]:
    allowed = literals(sorted(engine.variables))
    names = ", ".join(sorted(engine.variables))
    return rule(
        f"self.framework != '{framework}' || !has(self.env) || self.env.all(variable, variable.name in {allowed})",
        f"with framework {framework} only these can be set: {names}; for example LOG_LEVEL",
        field_path=".env",
        # Names first: of a field of what was filtered, the API server does not know the length.
        value=f"self.env.map(variable, variable.name).filter(name, !(name in {allowed}))[0]",
    )


def block_rules() -> list[dict[str, str]]:
    """The rules between a block and the rest of the spec."""
    return [
        rule(
            "!has(self.vllm) || !has(self.vllm.tensorParallelSize) || self.vllm.tensorParallelSize == 1 || "
            "(self.gpu.count > 0 && self.gpu.count % self.vllm.tensorParallelSize == 0)",
            "tensorParallelSize must divide gpu.count: with gpu.count 4 it may be 1, 2 or 4",
            field_path=".vllm.tensorParallelSize",
        ),
        rule(
            "!has(self.llamacpp) || !has(self.llamacpp.gpuLayers) || self.llamacpp.gpuLayers == 0 || "
            "self.gpu.count > 0",
            "layers on a GPU need one: set gpu.count to 1 or more, or remove gpuLayers",
            field_path=".llamacpp.gpuLayers",
        ),
        rule(
            "!has(self.transformers) || !has(self.transformers.int8Threshold) || "
            "(has(self.quantization) && self.quantization == 'bitsandbytes-8bit')",
            "a threshold has an effect with quantization bitsandbytes-8bit only: set that, or remove int8Threshold",
            field_path=".transformers.int8Threshold",
        ),
        rule(
            "self.framework != 'llamacpp' || !has(self.maxConcurrency) || self.maxConcurrency <= 256",
            "with framework llamacpp it must be at most 256, the slots that llama.cpp has",
            field_path=".maxConcurrency",
        ),
        rule(
            "self.task != 'embed' || !has(self.parameters)",
            "parameters are for answers of chat and completions: with task embed remove them",
            field_path=".parameters",
        ),
    ]
