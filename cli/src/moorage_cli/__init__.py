"""`kubectl moorage`: API keys of the gateway, and InferenceModels as files and back."""
