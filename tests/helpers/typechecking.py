from beartype import BeartypeConf, beartype

# PEP 484's numeric tower: an int will do where a float is asked for, as every type checker has it.
typecheck = beartype(conf=BeartypeConf(is_pep484_tower=True))
