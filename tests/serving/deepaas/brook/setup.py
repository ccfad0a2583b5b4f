from setuptools import setup

setup(
    name="brook",
    version="1",
    py_modules=["brook"],
    install_requires=["webargs>=8", "marshmallow>=4"],
    entry_points={"deepaas.v2.model": ["brook = brook"]},
)
