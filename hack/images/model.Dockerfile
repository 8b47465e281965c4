# A model as an image: its files at the root, readable by any user, and nothing that could run. Pods mount it read-only.
# The build context is a folder that holds the model's files:  docker build -f hack/images/model.Dockerfile FOLDER
FROM scratch
LABEL org.opencontainers.image.title="model" \
      org.opencontainers.image.description="The files of a model, to be mounted as an image volume"
COPY --chmod=0444 . /
