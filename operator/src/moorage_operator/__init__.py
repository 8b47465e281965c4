"""The operator: watches InferenceModels and makes the cluster match them."""
