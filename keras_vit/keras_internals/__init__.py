"""The only room that depends on parts of Keras that are not public.

One module for each assumption, named after it. Its docstring says what Keras does not
offer, what is assumed, and in which versions that was seen to hold; a test in
`tests/test_keras_internals.py` fails with a sentence that names the assumption where it
does not. Other rooms call the functions here, and name nothing of `keras.src` themselves.
"""
