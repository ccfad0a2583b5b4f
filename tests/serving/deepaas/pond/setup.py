from setuptools import setup

setup(
    name="pond",
    version="1.2",
    py_modules=["pond", "lake", "mire", "swamp"],
    install_requires=["webargs<6", "marshmallow<4"],
    entry_points={"deepaas.v2.model": ["pond = pond", "lake = lake:Lake", "mire = mire", "swamp = swamp"]},
)
