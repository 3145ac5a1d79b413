{ config, lib, ... }:

{
  options.a = { };

  config = {
    b = { imports = [ ]; };
  };
}
