# The base of our images where no registry is at hand: Debian with Python, made by mmdebstrap (hack/images/base.py).
FROM scratch
ADD base.tar /
ENV LANG=C.UTF-8
