from softmaxes._functions import log_softmax, logsumexp, softmax
