"""A module of today: webargs 8, marshmallow 4, arguments and answers as schemas."""

import marshmallow
from webargs import fields, validate


class Arguments(marshmallow.Schema):
    n = fields.Int(load_default=3, validate=validate.Range(1, 10), metadata={"description": "How many."})
    name = fields.Str(required=True, metadata={"location": "query"})
    lst = fields.DelimitedList(fields.Int(), load_default=[1])
    spot = fields.Nested({"x": fields.Int(required=True)}, load_default=None, allow_none=True)
    accept = fields.Str(
        load_default="text/plain",
        validate=validate.OneOf(["application/json", "text/plain"]),
        metadata={"location": "headers"},
    )


class FishSchema(marshmallow.Schema):
    name = fields.Str(required=True)
    n = fields.Int()
    lst = fields.List(fields.Int())
    spot = fields.Dict(allow_none=True)


schema = FishSchema


def get_metadata():
    return {"name": "brook", "description": "Counts trout."}


def get_predict_args():
    return Arguments().fields


def predict(accept, **args):
    return "trout" if accept == "text/plain" else args
