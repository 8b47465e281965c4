"""The InferenceModel as users write it, and its CustomResourceDefinition."""
